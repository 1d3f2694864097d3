"""The platform: what all model repos of an account and region share, a stack of infra/platform.yml.

Made in two steps, since the trigger's code and the product's template lie in the bucket that the
stack makes. The product's versions are made through the API: CloudFormation would delete those
that a template lists no longer.

Repos of several versions work with one platform: a newer one upgrades it, an older one leaves it
as it is. Contents of one version have the order in which they came: one that is new here takes the
place of the one before, and one that has been replaced stays so, whoever's repo still has it. So
two repos never undo each other's work.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from sm_mlops import objects, stacks
from sm_mlops import platform as package
from sm_mlops.aws import Aws, error_code
from sm_mlops.bootstrap import adoption, catalog, needs
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.deployment import stages
from sm_mlops.errors import MlopsError
from sm_mlops.stacks import Stack

if TYPE_CHECKING:
    from packaging.version import Version

    from sm_mlops.bootstrap.assets import Assets
    from sm_mlops.settings import Settings

STACK = "sm-mlops-platform"
TEMPLATE = "platform.yml"
CONNECTION = "sm-mlops"
ISSUER = "token.actions.githubusercontent.com"
CAPABILITIES = ("CAPABILITY_NAMED_IAM",)
CATALOG, S3 = "service-catalog", "s3"
# Set by what is there; a person sets the others.
OWN = (
    *("TemplateVersion", "AssetsPrefix", "FormerContents"),
    *("HasLayer", "FirstVersion", "FirstAssetsPrefix"),
)
# A parameter of a stack has 4,096 characters.
REMEMBERED = 200
# In the order of the plan. Policies, permissions and settings of these are not told on their own.
THINGS = {
    "ArtifactBucket": "artifact bucket",
    "OidcProvider": "OpenID Connect provider of GitHub",
    "Connection": "connection to GitHub",
    "GitHubSecret": "secret sm-mlops/github",
    "Boundary": "permissions boundary of training and serving",
    "GitHubBoundary": "permissions boundary of workflows",
    "LaunchRole": "role that makes projects",
    "Trigger": "function sm-mlops-trigger",
    "TriggerLayer": "layer sm-mlops-github-app",
    "ApprovedRule": "rule sm-mlops-approved",
    "FailedApprovals": "queue sm-mlops-failed-approvals",
    "TriggerErrors": "alarm sm-mlops-trigger-errors",
    "FailedApprovalsAlarm": "alarm sm-mlops-failed-approvals",
    "Portfolio": "portfolio sm-mlops",
    "Product": "product sm-mlops-model-repo",
}


@dataclass(frozen=True)
class Options:
    """What a person says on the command line. `parameters` are the platform's, by name."""

    template_provider: str = CATALOG
    parameters: Mapping[str, str] = field(default_factory=dict)
    continue_rollback: bool = False


def outputs(aws: Aws) -> dict[str, str] | None:
    """The outputs of the platform's stack; None where there is no platform, or only a beginning."""
    found = stacks.describe(aws, STACK)
    return found.outputs if found and found.outputs.get("ArtifactBucket") else None


def version(text: str) -> Version:
    """Raises MlopsError for what is none."""
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text)
    except InvalidVersion as error:
        raise MlopsError(f"{text!r} is not a version such as 0.1.0") from error


def is_ahead(settings: Settings, parameters: Mapping[str, str]) -> bool:
    """Whether this repo has nothing to say about what a platform with these parameters is made
    from: it is of a newer version, or has had this repo's content and another one since. Raises
    MlopsError."""
    if not parameters:
        return False
    return version(parameters["TemplateVersion"]) > version(_own_text(settings)) or is_superseded(
        settings, parameters
    )


def is_superseded(settings: Settings, parameters: Mapping[str, str]) -> bool:
    """Whether a platform of this repo's version has had this repo's content, and another one since.
    Raises MlopsError."""
    from sm_mlops.bootstrap import assets

    former = needs.items(parameters.get("FormerContents", ""))
    if not former or version(parameters["TemplateVersion"]) != version(_own_text(settings)):
        return False
    return assets.build(settings, layer=False).content in former


def _own_text(settings: Settings) -> str:
    return settings.project.template_version or "none"


@dataclass(frozen=True)
class Found:
    """The platform as it is. `version` is None before its first step has ended."""

    stack: Stack | None
    resources: Mapping[str, str]
    version: Version | None

    @property
    def parameters(self) -> Mapping[str, str]:
        return self.stack.parameters if self.stack and self.version else {}

    @property
    def outputs(self) -> Mapping[str, str]:
        return self.stack.outputs if self.stack else {}

    @property
    def complete(self) -> bool:
        """Whether the second step has been taken, too."""
        return bool(self.parameters.get("AssetsPrefix"))

    @property
    def content(self) -> str:
        from sm_mlops.bootstrap import assets

        return assets.content_of(self.parameters.get("AssetsPrefix", ""))

    @property
    def has_layer(self) -> bool:
        return self.parameters.get("HasLayer") == "true"


@dataclass
class Platform:
    aws: Aws
    options: Options = field(default_factory=Options)
    _built: dict[bool, Assets] = field(default_factory=dict, init=False, repr=False)

    # What there is

    def look(self) -> list[Item]:
        found = self._find()
        place = needs.place(self.aws)
        return [
            self._stack_item(found, place),
            *self._things(found, place),
            *self._offered(found, place),
            *self._for_people(found, place),
        ]

    def _find(self) -> Found:
        stack = stacks.describe(self.aws, STACK)
        if stack is None or stack.status in ("REVIEW_IN_PROGRESS", *stacks.DEAD):
            return Found(stack, {}, None)
        held = {item.name: item.physical for item in stacks.resources(self.aws, stack)}
        wrote = stack.parameters.get("TemplateVersion")
        return Found(stack, held, version(wrote) if wrote else None)

    @cached_property
    def own(self) -> Version:
        """The version of this repo's template."""
        return version(_own_text(self.aws.settings))

    def _is_newer(self, found: Found) -> bool:
        return found.version is not None and found.version > self.own

    def _stays(self, found: Found) -> bool:
        return is_ahead(self.aws.settings, found.parameters)

    def _stack_item(self, found: Found, place: str) -> Item:
        what, mine = f"platform {STACK}", self.own
        if found.stack is None or found.version is None:
            state = found.stack.status if found.stack else ""
            detail = f"version {mine}" + (f", now {state}" if state else "")
            return Item(place, what, Todo.CREATE, detail)
        changes = self._changes(found)
        if self._is_newer(found):
            detail = f"version {found.version}, newer than {mine} of this repo: stays as it is"
        elif self._stays(found):
            detail = (
                f"version {found.version}, in which other files of infra/ have taken the place of "
                "this repo's: stays as it is (to bring these back, raise template-version in "
                "pyproject.toml)"
            )
        elif found.version < mine:
            changes.insert(0, f"version {found.version} -> {mine}")
            detail = ""
        else:
            detail = f"version {mine}"
            if not found.complete:
                changes.insert(0, "the second half")
            elif found.parameters["AssetsPrefix"] != self._assets(found).prefix:
                before, now = found.content[:8], self._assets(found).content[:8]
                changes.insert(0, f"other files of infra/, {before} -> {now}")
            elif self._has_layer(found) != found.has_layer:
                changes.insert(0, f"{'no ' if found.has_layer else ''}layer for GitHub Apps")
        if found.stack.busy:
            changes.insert(0, f"now {found.stack.status}")
        if changes:
            return Item(place, what, Todo.CHANGE, "; ".join([*filter(None, [detail]), *changes]))
        return Item(place, what, Todo.NOTHING, detail)

    def _things(self, found: Found, place: str) -> Iterator[Item]:
        unwanted = set()
        given = self._wanted(found)
        for parameter, logical in (
            ("OidcProviderArn", "OidcProvider"),
            ("ConnectionArn", "Connection"),
        ):
            if given.get(parameter) or (parameter not in given and found.parameters.get(parameter)):
                unwanted.add(logical)
        if not self._has_layer(found):
            unwanted.add("TriggerLayer")
        for logical, words in THINGS.items():
            physical = found.resources.get(logical, "")
            name = f"{words} {self._bucket(found)}" if logical == "ArtifactBucket" else words
            if physical:
                yield Item(place, name, Todo.NOTHING)
            elif logical == "ArtifactBucket" and adoption.exists(self.aws, self._bucket(found)):
                yield Item(place, name, Todo.CHANGE, "becomes the platform's, with what is in it")
            elif logical not in unwanted and not self._stays(found):
                yield Item(place, name, Todo.CREATE)

    def _bucket(self, found: Found) -> str:
        """The name it has, or will have."""
        default = f"sm-mlops-{self.aws.account}-{self.aws.settings.project.region}"
        given = self._wanted(found).get("BucketName") or found.parameters.get("BucketName")
        return found.resources.get("ArtifactBucket") or given or default

    def _offered(self, found: Found, place: str) -> Iterator[Item]:
        """Versions of the product, and who may use it."""
        product = found.outputs.get("ProductId", "")
        known = catalog.versions(self.aws, product) if product else []
        if not self._stays(found):
            template = self._assets(found).template
            there = catalog.version_with(known, template)
            todo = Todo.NOTHING if there else Todo.CREATE
            detail = ""
            if there and there.guidance == catalog.OUTDATED:
                todo, detail = Todo.CHANGE, "no more outdated"
            yield Item(place, f"product version {catalog.name_for(known, template)}", todo, detail)
            if late := catalog.outdated(known, template) if there else []:
                names = ", ".join(item.name for item in late)
                yield Item(place, "older product versions", Todo.CHANGE, f"outdated: {names}")
        principal = self._principal()
        if principal:
            portfolio = found.outputs.get("PortfolioId", "")
            granted = bool(portfolio) and principal in catalog.principals(self.aws, portfolio)
            todo = Todo.NOTHING if granted else Todo.CREATE
            yield Item(place, "your right to make projects", todo, principal.rpartition(":")[2])

    def _for_people(self, found: Found, place: str) -> Iterator[Item]:
        settings = self.aws.settings
        bucket = self._bucket(found)
        if self.aws.bucket != bucket:
            yield Item(
                place,
                f"bucket {self.aws.bucket} in mlops.yaml",
                Todo.PERSON,
                f"the platform's is {bucket}",
                f"set aws.bucket in mlops.yaml to {bucket}",
            )
        address = self._wanted(found).get("JenkinsUrl") or found.parameters.get("JenkinsUrl")
        if settings.project.ci == "jenkins" and not address:
            yield Item(
                place,
                "address of Jenkins",
                Todo.PERSON,
                "approvals start no deployment without it",
                f"{self.aws.command} bootstrap --platform JenkinsUrl=https://...",
            )

    def _principal(self) -> str:
        """Who is to be granted the product; empty where nobody needs to be."""
        return "" if self.options.template_provider == S3 else catalog.principal(self.aws)

    # What it should be

    @cached_property
    def _template(self) -> Path:
        return package.FOLDER / TEMPLATE

    @cached_property
    def _declared(self) -> dict[str, dict[str, Any]]:
        return stages.template_parameters(self._template)

    @cached_property
    def _given(self) -> dict[str, str]:
        """The parameters of the command line, checked. Raises MlopsError."""
        free = [name for name in self._declared if name not in OWN]
        for name, value in self.options.parameters.items():
            if name not in free:
                raise MlopsError(f"--platform {name}: {stages.hint(name, free)}")
            stages.check(self._declared[name], value, f"--platform {name}")
        return dict(self.options.parameters)

    def _wanted(self, found: Found) -> dict[str, str]:
        """The parameters that this repo has something to say about, those set by a person too."""
        had, given, project = found.parameters, self._given, self.aws.settings.project
        owner = project.github.partition("/")[0]

        def before(name: str) -> str:
            return given.get(name, had.get(name, ""))

        wanted = dict(given)
        wanted["AllowedOwners"] = needs.united(before("AllowedOwners"), [owner], ignore_case=True)
        for name, needed in (
            ("DeploymentAccounts", self._accounts),
            ("DataLocations", self._data),
            ("KeyArns", filter(None, [self._key])),
        ):
            wanted[name] = needs.united(before(name), needed)
        if not had:
            wanted = self._first() | wanted
        elif had.get("OidcProviderArn") == "none" and not project.uses_key:
            wanted.setdefault("OidcProviderArn", self._oidc_provider)
        return wanted

    @cached_property
    def _accounts(self) -> tuple[str, ...]:
        return needs.accounts(self.aws)

    @cached_property
    def _data(self) -> tuple[str, ...]:
        return needs.data_locations(self.aws)

    @cached_property
    def _key(self) -> str:
        return needs.key_arn(self.aws)

    def _first(self) -> dict[str, str]:
        """Parameters that only a new platform is given."""
        settings = self.aws.settings
        project = settings.project
        found = {
            "BucketName": settings.aws.bucket or "",
            "OidcProviderArn": "none" if project.uses_key else self._oidc_provider,
            "ConnectionArn": self._connection,
        }
        if project.git_host != "github.com":
            found |= {
                "GitHost": project.git_host,
                "GitHubApiUrl": f"https://{project.git_host}/api/v3",
            }
            if (
                not ({"ConnectionHostArn", "ConnectionArn"} & set(self._given))
                and not found["ConnectionArn"]
            ):
                raise MlopsError(
                    f"{project.git_host} is reached through a host of CodeConnections: make one in "
                    "the console of AWS and name it with --platform ConnectionHostArn=arn:..."
                )
        return found

    @cached_property
    def _oidc_provider(self) -> str:
        """The one that the account has for all regions; empty: the platform makes it."""
        listed = self.aws.client("iam").list_open_id_connect_providers()
        arns = [str(item["Arn"]) for item in listed["OpenIDConnectProviderList"]]
        return next((arn for arn in arns if arn.endswith(f"/{ISSUER}")), "")

    @cached_property
    def _connection(self) -> str:
        """A connection of the platform's name, which an account can have one of."""
        name = self._given.get("ConnectionName", CONNECTION)
        more: dict[str, str] = {}
        while True:
            answer = self.aws.client("codeconnections").list_connections(**more)
            for item in answer["Connections"]:
                if item["ConnectionName"] == name:
                    return str(item["ConnectionArn"])
            if not answer.get("NextToken"):
                return ""
            more = {"NextToken": answer["NextToken"]}

    def _changes(self, found: Found) -> list[str]:
        """How the parameters differ, in words."""
        lines = []
        for name, value in self._wanted(found).items():
            had = found.parameters.get(name, str(self._declared[name].get("Default", "")))
            if value == had:
                continue
            added = [item for item in needs.items(value) if item not in needs.items(had)]
            is_list = self._declared[name]["Type"] == "CommaDelimitedList"
            shown = " ".join(f"+ {item}" for item in added) if is_list and added else value
            lines.append(f"{name} {shown or 'empty'}")
        return lines

    def _has_layer(self, found: Found) -> bool:
        """Whether the trigger signs in as a GitHub App."""
        from sm_mlops.bootstrap import credential

        return found.version is not None and credential.kind(self.aws) == "app"

    def _assets(self, found: Found) -> Assets:
        from sm_mlops.bootstrap import assets

        layer = self._has_layer(found)
        if layer not in self._built:
            self._built[layer] = assets.build(self.aws.settings, layer=layer)
        return self._built[layer]

    # Doing it

    def act(self, tell: Tell) -> None:
        found = self._ready(tell)
        if self._stays(found):
            if self._changes(found):
                self._deploy(found, None, {}, tell)
        else:
            found = self._first_step(found, tell)
            self._upload(found, tell)
            found = self._second_step(found, tell)
            self._offer(found, tell)
        self._grant(found, tell)

    def _ready(self, tell: Tell) -> Found:
        """Once nothing else is under way. A stack that never came to life is deleted."""
        stack = stacks.describe(self.aws, STACK)
        if stack and (stack.busy or stack.status in stacks.DEAD):
            what = "waiting for that to end" if stack.busy else "deleting it to create it anew"
            tell(f"{STACK} is {stack.status}: {what}")
        stacks.make_ready(
            self.aws, STACK, _quiet(), continue_rollback=self.options.continue_rollback
        )
        return self._find()

    def _first_step(self, found: Found, tell: Tell) -> Found:
        if found.version is not None:
            return found
        bucket = self._bucket(found)
        if "ArtifactBucket" not in found.resources and adoption.exists(self.aws, bucket):
            adoption.adopt(self.aws, STACK, bucket, _quiet())
            tell(f"taken over   bucket {bucket}")
        own = {"TemplateVersion": _own_text(self.aws.settings), "AssetsPrefix": ""}
        return self._deploy(found, self._template, self._wanted(found) | own, tell)

    def _second_step(self, found: Found, tell: Tell) -> Found:
        built, had, mine = self._assets(found), found.parameters, _own_text(self.aws.settings)
        own = {
            "TemplateVersion": mine,
            "AssetsPrefix": built.prefix,
            "FormerContents": self._former(found),
            "HasLayer": "true" if self._has_layer(found) else "false",
            "FirstVersion": had.get("FirstVersion") or mine,
            "FirstAssetsPrefix": had.get("FirstAssetsPrefix")
            or built.template.rpartition("/")[0] + "/",
        }
        same = all(had.get(name) == value for name, value in own.items())
        if same and not self._changes(found):
            return found
        return self._deploy(found, self._template, own, tell)

    def _former(self, found: Found) -> str:
        """What this version of the template had here before this repo's content."""
        if found.version != self.own:
            return ""
        known = needs.items(found.parameters.get("FormerContents", ""))
        if found.content not in ("", self._assets(found).content):
            known = (*known, found.content)
        return needs.joined(known[-REMEMBERED:])

    def _deploy(
        self, found: Found, template: Path | None, own: Mapping[str, str], tell: Tell
    ) -> Found:
        """Without a template the stack keeps its own, and the parameters that this one knows."""
        known = self._declared if template else found.parameters
        wanted = {name: value for name, value in self._wanted(found).items() if name in known}
        kept = {name: None for name in found.parameters if name in known}
        outcome = stacks.deploy(
            self.aws,
            STACK,
            template,
            {**kept, **wanted, **own},
            {},
            CAPABILITIES,
            _quiet(),
            continue_rollback=self.options.continue_rollback,
        )
        for change in outcome.changes:
            if change.resource in THINGS:
                tell(f"{change.action:<12} {THINGS[change.resource]}")
        tell(f"{'deployed':<12} {STACK}")
        return self._find()

    def _upload(self, found: Found, tell: Tell) -> None:
        """What is missing below the prefix, where nothing ever changes."""
        built = self._assets(found)
        same = found.complete and found.parameters["AssetsPrefix"] == built.prefix
        if same and found.has_layer >= self._has_layer(found):
            return
        bucket, names = found.outputs["ArtifactBucket"], []
        for name, content in built.files.items():
            key = built.key(name)
            if _size(self.aws, bucket, key) == len(content):
                continue
            # With the tag, Studio offers a template of SageMaker's S3 template provider.
            tags = (
                {"Tagging": "sagemaker%3Astudio-visibility=true"} if name.endswith(".yml") else {}
            )
            self.aws.s3.put_object(Bucket=bucket, Key=key, Body=content, **tags)
            names.append(name)
        if names:
            tell(f"{'uploaded':<12} {', '.join(names)} to s3://{bucket}/platform/")

    def _offer(self, found: Found, tell: Tell) -> None:
        product, template = found.outputs["ProductId"], self._assets(found).template
        known = catalog.versions(self.aws, product)
        there = catalog.version_with(known, template)
        if there is None:
            url = object_url(self.aws, found.outputs["ArtifactBucket"], template)
            name = catalog.name_for(known, template)
            catalog.add_version(self.aws, product, name, template, url)
            tell(f"{'added':<12} product version {name}")
        elif there.guidance == catalog.OUTDATED:
            catalog.mark(self.aws, product, there, catalog.NEWEST)
            tell(f"{'changed':<12} product version {there.name}: no more outdated")
        for item in catalog.outdated(known, template):
            catalog.mark(self.aws, product, item, catalog.OUTDATED)
            tell(f"{'outdated':<12} product version {item.name}")

    def _grant(self, found: Found, tell: Tell) -> None:
        principal, portfolio = self._principal(), found.outputs.get("PortfolioId", "")
        if not principal or not portfolio:
            return
        if principal not in catalog.principals(self.aws, portfolio):
            catalog.grant(self.aws, portfolio, principal)
            tell(f"{'granted':<12} {principal} may make projects")

    # Taking it away

    def others(self) -> list[str]:
        """Who uses the platform besides this repo: stacks of projects and provisioned products."""
        from sm_mlops.bootstrap import project

        found = stacks.describe(self.aws, STACK)
        if found is None:
            return []
        own = project.find(self.aws)
        users = set(_importers(self.aws, "sm-mlops-BoundaryArn"))
        if product := found.outputs.get("ProductId"):
            users |= set(catalog.provisioned(self.aws, product))
        return sorted(users - {own.stack.name if own and own.stack else ""})

    def look_back(self) -> list[Item]:
        found, place = self._find(), needs.place(self.aws)
        if found.stack is None:
            return []
        items = [Item(place, f"platform {STACK}", Todo.DELETE)]
        for logical, words in THINGS.items():
            if logical == "ArtifactBucket" and logical in found.resources:
                bucket = found.resources[logical]
                count, size = _content(self.aws, bucket)
                detail = f"with {count} objects, {size / 1e6:.1f} MB"
                items.append(Item(place, f"{words} {bucket}", Todo.DELETE, detail))
            elif logical in found.resources:
                detail = "of all regions of the account" if logical == "OidcProvider" else ""
                items.append(Item(place, words, Todo.DELETE, detail))
        return items

    def undo(self, tell: Tell) -> None:
        stack = stacks.describe(self.aws, STACK)
        if stack is None:
            return
        if stack.busy:
            tell(f"{STACK} is {stack.status}: waiting for that to end")
            stacks.follow(self.aws, stack, stacks.newest_event(self.aws, stack.arn), _quiet())
        found = self._find()
        if found.stack is None:
            return
        # Not what the outputs say: an earlier deletion may have come half way.
        held = {item.name: item.physical for item in stacks.resources(self.aws, found.stack)}
        # Out of sight of the stack, and in the way of its deletion.
        if portfolio := held.get("Portfolio"):
            for principal in catalog.principals(self.aws, portfolio):
                catalog.revoke(self.aws, portfolio, principal)
                tell(f"{'revoked':<12} {principal}")
        if bucket := held.get("ArtifactBucket"):
            count = objects.delete_versions(self.aws, bucket)
            tell(f"{'emptied':<12} bucket {bucket}, {count} objects")
        stacks.delete(self.aws, found.stack, _quiet())
        tell(f"{'deleted':<12} {STACK}")


def object_url(aws: Aws, bucket: str, key: str) -> str:
    """The address of a template, as CloudFormation and Service Catalog take it."""
    region = aws.settings.project.region
    suffix = "amazonaws.com.cn" if aws.settings.partition == "aws-cn" else "amazonaws.com"
    return f"https://{bucket}.s3.{region}.{suffix}/{key}"


def _quiet() -> Console:
    """Events of stacks are many; what came of them is told once they have ended."""
    return Console(quiet=True)


def _size(aws: Aws, bucket: str, key: str) -> int | None:
    from botocore.exceptions import ClientError

    try:
        return int(aws.s3.head_object(Bucket=bucket, Key=key)["ContentLength"])
    except ClientError as error:
        if error_code(error) not in ("404", "NoSuchKey"):
            raise
        return None


def _importers(aws: Aws, export: str) -> Iterable[str]:
    """Names of the stacks that use a value which the platform exports."""
    from botocore.exceptions import ClientError

    try:
        pages = aws.client("cloudformation").get_paginator("list_imports")
        return [name for page in pages.paginate(ExportName=export) for name in page["Imports"]]
    except ClientError as error:
        if error_code(error) != "ValidationError" or not re.search(
            "not imported|does not exist", str(error)
        ):
            raise
        return []


def _content(aws: Aws, bucket: str) -> tuple[int, int]:
    """How many versions of objects there are, and their size in bytes."""
    found = [int(item.get("Size", 0)) for item in objects.versions(aws, bucket)]
    return len(found), sum(found)


@dataclass
class Again:
    """A part that has the platform look once more: what the credential is, decides whether the
    trigger needs its layer, and is known only once there is one."""

    platform: Platform

    def look(self) -> list[Item]:
        return []

    def act(self, tell: Tell) -> None:
        self.platform.act(tell)
