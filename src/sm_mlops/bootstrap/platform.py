"""The platform: what all model repos of an account and region share, one stack of platform.yml.

Deployed in two steps, because the trigger's code and the project's template are in the bucket that
the stack creates. Later versions of the product are added through the API: CloudFormation would
delete those that a template no longer lists.

Repos with tools of several versions share one platform. A newer tool upgrades it; an older one
keeps its template and adds only what its repo needs. Among tools of the same version
with different files, as a fork has them while it is edited, the one that runs deploys its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from packaging.version import InvalidVersion, Version
from rich.console import Console

from sm_mlops import objects, projects, regions, stacks, templates
from sm_mlops import platform as package
from sm_mlops.aws import Aws, ignoring
from sm_mlops.bootstrap import adoption, assets, catalog, content, credential, exports, needs
from sm_mlops.bootstrap.boundaries import Boundaries
from sm_mlops.bootstrap.parameters import ROLES, Parameters
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.errors import MlopsError
from sm_mlops.platform import CAPABILITIES
from sm_mlops.platform import STACK as STACK
from sm_mlops.stacks import Stack

CATALOG, S3 = "service-catalog", "s3"
# For stacks, of which the plan reports only how they end.
_QUIET = Console(quiet=True)
ADOPTED = "joins with its objects; their versions are deleted 90 days after they were replaced"
# In the order of the plan, which does not list their policies, permissions and settings.
THINGS = {
    "ArtifactBucket": "artifact bucket",
    "OidcProvider": "OpenID Connect provider for GitHub",
    "Connection": "connection to GitHub",
    "GitHubSecret": "secret sm-mlops/github",
    "TrainBoundary": "permissions boundary for training",
    "Boundary": "permissions boundary for serving",
    "GitHubBoundary": "permissions boundary for deploying",
    "LaunchRole": "launch role for projects",
    "Trigger": "function sm-mlops-trigger",
    "Retrain": "function sm-mlops-retrain",
    "Notify": "function sm-mlops-notify",
    "TriggerLayer": "layer sm-mlops-github-app",
    "ApprovedRule": "rule sm-mlops-approved",
    "DriftRule": "rule sm-mlops-drift",
    "WaitingRule": "rule sm-mlops-waiting",
    "TrainedRule": "rule sm-mlops-trained",
    "FailedRule": "rule sm-mlops-failed",
    "FailedApprovals": "queue sm-mlops-failed-approvals",
    "Topic": "topic sm-mlops-notifications",
    "TriggerErrors": "alarm sm-mlops-trigger-errors",
    "FailedApprovalsAlarm": "alarm sm-mlops-failed-approvals",
    "Portfolio": "portfolio sm-mlops",
    "Product": "product sm-mlops-model-repo",
}


@dataclass(frozen=True)
class Options:
    """Options of the command line. `parameters` are the platform's, by name."""

    template_provider: str = CATALOG
    parameters: Mapping[str, str] = field(default_factory=dict)
    continue_rollback: bool = False
    subscribers: tuple[str, ...] = ()


def outputs(aws: Aws) -> dict[str, str] | None:
    """Return the outputs of the platform's stack; None if it is missing or incomplete."""
    found = stacks.describe(aws, STACK)
    return found.outputs if found and found.outputs.get("ArtifactBucket") else None


def version(text: str) -> Version:
    """Return a version that can be compared. Raise MlopsError for any other text."""
    try:
        return Version(text)
    except InvalidVersion as error:
        raise MlopsError(f"{text!r} is not a version such as 0.2.0") from error


def is_newer(parameters: Mapping[str, str]) -> bool:
    """Return whether a newer tool has deployed a platform with these parameters."""
    wrote = parameters.get("TemplateVersion")
    return bool(wrote) and version(str(wrote)) > version(package.version())


@dataclass(frozen=True)
class Found:
    """The platform as it is. `version` is None until its first step is done."""

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
    def newer(self) -> bool:
        return is_newer(self.parameters)


@dataclass
class Platform(Part):
    """The first part of the plan."""

    aws: Aws
    options: Options = field(default_factory=Options)

    @cached_property
    def _parameters(self) -> Parameters:
        return Parameters(self.aws, self.options.parameters)

    @cached_property
    def _assets(self) -> assets.Assets:
        return assets.build()

    def look(self) -> list[Item]:
        regions.require(self.aws.settings.project.region)
        found = self._find()
        self._require_possible(found)
        self._require_adoptable(found)
        return [
            self._stack_item(found),
            *self._things(found),
            *self._changed(found),
            *self._offered(found),
            *self._manual(found),
        ]

    def _find(self) -> Found:
        stack = stacks.describe(self.aws, STACK)
        if stack is None or stack.status in ("REVIEW_IN_PROGRESS", *stacks.DEAD):
            return Found(stack, {}, None)
        held = {item.name: item.physical for item in stacks.resources(self.aws, stack)}
        wrote = stack.parameters.get("TemplateVersion")
        return Found(stack, held, version(wrote) if wrote else None)

    def _stack_item(self, found: Found) -> Item:
        what, mine = f"platform {STACK}", version(package.version())
        if found.stack is None or found.version is None:
            now = f", now {found.stack.status}" if found.stack else ""
            return Item(what, Todo.CREATE, f"version {mine}{now}")
        changes = [f"now {found.stack.status}"] if found.stack.busy else []
        detail = f"version {found.version}"
        if found.newer:
            detail += f", newer than this tool ({mine}): its template stays as it is"
        elif found.version < mine:
            changes.append(f"upgrade to {mine}")
        elif not found.parameters["AssetsPrefix"]:
            changes.append("second step missing")
        elif found.parameters["AssetsPrefix"] != self._assets.prefix:
            changes.append("its files will be replaced by this tool's")
        elif self._layer(found) != found.parameters["HasLayer"]:
            changes.append(f"layer for GitHub Apps: {self._layer(found)}")
        changes += self._parameters.changes(found.parameters)
        todo = Todo.CHANGE if changes else Todo.NOTHING
        return Item(what, todo, "; ".join([detail, *changes]))

    def _things(self, found: Found) -> Iterator[Item]:
        will = self._will(found)
        unwanted = {name for name in ("OidcProvider", "Connection") if will.get(f"{name}Arn")}
        if will.get("AlarmTopicArn"):
            unwanted.add("Topic")
        if self._layer(found) == "false":
            unwanted.add("TriggerLayer")
        for logical, words in THINGS.items():
            physical = found.resources.get(logical, "")
            name = f"{words} {self._bucket(found)}" if logical == "ArtifactBucket" else words
            if physical:
                yield Item(name, Todo.NOTHING)
            elif logical == "ArtifactBucket" and adoption.exists(self.aws, self._bucket(found)):
                yield Item(name, Todo.CHANGE, ADOPTED)
            elif logical not in unwanted and not found.newer:
                yield Item(name, Todo.CREATE)

    def _changed(self, found: Found) -> Iterator[Item]:
        """Yield what is no longer what this tool built."""
        prefix, files = self._assets.prefix, self._assets.files
        if found.newer or found.parameters.get("AssetsPrefix") != prefix:
            return
        missing, other = content.differing(self.aws, self._bucket(found), prefix, files)
        for name in missing:
            yield Item(f"{prefix}{name}", Todo.CREATE)
        for name in other:
            yield Item(f"{prefix}{name}", Todo.CHANGE, "its content is not this tool's")
        for name, runs, built in content.deployed(self.aws, found.resources, files):
            yield Item(f"code of {name}", Todo.CHANGE, f"{runs}, not {built} of this tool")

    def _bucket(self, found: Found) -> str:
        """Return the name that the bucket has or will have."""
        default = f"sm-mlops-{self.aws.account}-{self.aws.settings.project.region}"
        will = self._will(found)
        return found.resources.get("ArtifactBucket") or will.get("BucketName") or default

    def _offered(self, found: Found) -> Iterator[Item]:
        """Yield the versions of the product, and the right to use it."""
        product = found.outputs.get("ProductId", "")
        if not found.newer:
            known = catalog.versions(self.aws, product) if product else []
            template = self._assets.template
            there = catalog.version_with(known, template)
            todo = Todo.NOTHING if there else Todo.CREATE
            yield Item(f"product version {assets.version_of(template)}", todo)
            for item, guidance in catalog.to_mark(known, template) if there else ():
                yield Item(f"guidance of product version {item.name}", Todo.CHANGE, guidance)
        if principal := self._principal():
            portfolio = found.outputs.get("PortfolioId", "")
            granted = bool(portfolio) and principal in catalog.principals(self.aws, portfolio)
            todo = Todo.NOTHING if granted else Todo.CREATE
            yield Item("your permission to create projects", todo, principal.rpartition(":")[2])

    def _manual(self, found: Found) -> Iterator[Item]:
        bucket = self._bucket(found)
        if self.aws.bucket != bucket:
            what, how = f"bucket {self.aws.bucket}", f"set aws.bucket in mlops.yaml to {bucket}"
            yield Item(f"{what} in mlops.yaml", Todo.PERSON, f"the platform has {bucket}", how)
        will = self._will(found)
        if self.aws.settings.project.ci == "jenkins" and not will.get("JenkinsUrl"):
            yield Item(
                "Jenkins URL",
                Todo.PERSON,
                "approvals cannot start deployments without it",
                f"{self.aws.command} bootstrap --platform JenkinsUrl=https://...",
            )

    def _principal(self) -> str:
        """Return who has to be granted the product; empty for no one."""
        return "" if self.options.template_provider == S3 else catalog.principal(self.aws)

    def _require_possible(self, found: Found) -> None:
        """Raise MlopsError for parameters with which CloudFormation would fail half way."""
        will, had = self._will(found), found.parameters
        if had:
            exports.require_unused(self.aws, had, will)
            exports.require_other_name(had, will)
        boundaries = Boundaries(self.aws, self._bucket(found))
        boundaries.require_apart(will.get("DataLocations", ""))
        # A newer tool's template is unknown here.
        if not found.newer:
            boundaries.require_space(will)

    def _require_adoptable(self, found: Found) -> None:
        """Raise MlopsError if the bucket has what the platform would replace."""
        bucket, held = self._bucket(found), found.resources
        # A busy stack may be about to create the policy.
        busy = found.stack is not None and found.stack.busy
        if "ArtifactBucketPolicy" in held or busy or not adoption.exists(self.aws, bucket):
            return
        if "ArtifactBucket" not in held:
            adoption.require_plain(self.aws, bucket)
        adoption.require_without_policy(self.aws, bucket)

    def _wanted(self, found: Found) -> dict[str, str]:
        return self._parameters.wanted(found.parameters)

    def _will(self, found: Found) -> dict[str, str]:
        """Return the parameters as they will be."""
        return {**found.parameters, **self._wanted(found)}

    def _layer(self, found: Found) -> str:
        """Return the value of HasLayer: "true" if the trigger signs in as a GitHub App."""
        is_app = found.version is not None and credential.kind(self.aws) == "app"
        return str(is_app).lower()

    def act(self, tell: Tell) -> None:
        found = self._ready(tell)
        had = found.parameters
        if found.newer:
            if self._parameters.changes(found.parameters):
                found = self._deploy(found, None, {}, tell)
                self._revoke(had, found, tell)
        else:
            found = self._first_step(found, tell)
            self._upload(found, tell)
            found = self._second_step(found, tell)
            self._revoke(had, found, tell)
            where = f"s3://{found.outputs['ArtifactBucket']}/{self._assets.prefix}"
            content.check(self.aws, found.resources, self._files(found), where)
            self._offer(found, tell)
        self._grant(found, tell)

    def _ready(self, tell: Tell) -> Found:
        """Wait for an operation in progress, and delete a stack that was never complete."""
        stack, again = stacks.describe(self.aws, STACK), self.options.continue_rollback
        if stack and stack.busy:
            tell(f"Waiting: {STACK} is {stack.status}")
        elif stack and stack.status in stacks.DEAD:
            tell(f"Deleting and recreating {STACK}, which is {stack.status}")
        stacks.make_ready(self.aws, STACK, _QUIET, continue_rollback=again)
        return self._find()

    def _first_step(self, found: Found, tell: Tell) -> Found:
        if found.version is not None:
            return found
        bucket = self._bucket(found)
        if "ArtifactBucket" not in found.resources and adoption.exists(self.aws, bucket):
            adoption.adopt(self.aws, STACK, bucket, _QUIET)
            tell(f"{'adopted':<12} bucket {bucket}")
        own = {"TemplateVersion": package.version(), "AssetsPrefix": ""}
        template = templates.without(self._parameters.template, "HasAssets")
        return self._deploy(found, template, self._wanted(found) | own, tell)

    @cached_property
    def _with_layer(self) -> dict[str, bytes]:
        return {**self._assets.files, assets.LAYER: assets.build_layer(self.aws.settings.root)}

    def _files(self, found: Found) -> Mapping[str, bytes]:
        """Return all files that the stack needs; the layer is built, or nothing says what it is."""
        return self._with_layer if self._layer(found) == "true" else self._assets.files

    def _upload(self, found: Found, tell: Tell) -> None:
        """Upload the files that are missing below the prefix, and those whose content differs."""
        prefix, files = self._assets.prefix, self._files(found)
        bucket = found.outputs["ArtifactBucket"]
        missing, other = content.differing(self.aws, bucket, prefix, files)
        for name in (*missing, *other):
            # SageMaker's S3 template provider shows templates with this tag in Studio.
            tags = {"Tagging": "sagemaker%3Astudio-visibility=true"}
            shown = tags if name == assets.PROJECT else {}
            objects.put(self.aws, bucket, prefix + name, files[name], **shown)
        if missing:
            tell(f"{'uploaded':<12} {', '.join(missing)} to s3://{bucket}/{prefix}")
        if other:
            tell(
                f"{'replaced':<12} {', '.join(other)} at s3://{bucket}/{prefix}: the content there "
                "was not this tool's; find out in CloudTrail who wrote it"
            )

    def _second_step(self, found: Found, tell: Tell) -> Found:
        prefix, had = self._assets.prefix, found.parameters
        own = {
            "TemplateVersion": package.version(),
            "AssetsPrefix": prefix,
            "HasLayer": self._layer(found),
            "FirstAssetsPrefix": had.get("FirstAssetsPrefix") or prefix,
        }
        same = all(had.get(name) == value for name, value in own.items())
        if same and not self._parameters.changes(had):
            return found
        bucket = found.outputs["ArtifactBucket"]
        return self._deploy(
            found, object_url(self.aws, bucket, prefix + assets.PLATFORM), own, tell
        )

    def _deploy(
        self, found: Found, template: str | None, own: Mapping[str, str], tell: Tell
    ) -> Found:
        """Deploy the stack; without a template it keeps its own, with the parameters of that."""
        known = self._parameters.declared if template else found.parameters
        wanted = {name: value for name, value in self._wanted(found).items() if name in known}
        kept = {name: None for name in found.parameters if name in known}
        outcome = stacks.deploy(
            self.aws,
            STACK,
            template,
            {**kept, **wanted, **own},
            {},
            CAPABILITIES,
            _QUIET,
            continue_rollback=self.options.continue_rollback,
        )
        for change in outcome.changes:
            if change.resource in THINGS:
                tell(f"{change.action:<12} {THINGS[change.resource]}")
        tell(f"{'deployed':<12} {STACK}")
        return self._find()

    def _offer(self, found: Found, tell: Tell) -> None:
        product, template = found.outputs["ProductId"], self._assets.template
        known = catalog.versions(self.aws, product)
        if catalog.version_with(known, template) is None:
            url = object_url(self.aws, found.outputs["ArtifactBucket"], template)
            catalog.add_version(self.aws, product, template, url)
            tell(f"{'added':<12} product version {assets.version_of(template)}")
        for item, guidance in catalog.to_mark(known, template):
            catalog.mark(self.aws, product, item, guidance)
            tell(f"{'changed':<12} guidance of product version {item.name} to {guidance}")

    def _revoke(self, had: Mapping[str, str], found: Found, tell: Tell) -> None:
        """Take the right away from roles that are no longer listed.

        CloudFormation leaves it to a role whose name has a path, as those of Studio. Source:
        https://github.com/aws-cloudformation/cloudformation-coverage-roadmap/issues/2430
        """
        was, now = ({*needs.items(each.get(ROLES, ""))} for each in (had, found.parameters))
        portfolio = found.outputs.get("PortfolioId", "")
        if portfolio and (gone := was - now - {needs.FREE, self._principal()}):
            for role in sorted(gone & {*catalog.principals(self.aws, portfolio)}):
                catalog.revoke(self.aws, portfolio, role)
                tell(f"{'revoked':<12} {role} may no longer create projects")

    def _grant(self, found: Found, tell: Tell) -> None:
        principal, portfolio = self._principal(), found.outputs.get("PortfolioId", "")
        if principal and portfolio and principal not in catalog.principals(self.aws, portfolio):
            catalog.grant(self.aws, portfolio, principal)
            tell(f"{'granted':<12} {principal} may create projects")

    def look_back(self) -> list[Item]:
        found = self._find()
        if found.stack is None:
            return []
        names, details = dict(THINGS), {"OidcProvider": "used by all regions of the account"}
        if bucket := found.resources.get("ArtifactBucket"):
            names["ArtifactBucket"] += f" {bucket}"
            sizes = [int(item.get("Size", 0)) for item in objects.versions(self.aws, bucket)]
            details["ArtifactBucket"] = f"with {len(sizes)} objects, {sum(sizes) / 1e6:.1f} MB"
        items = [
            Item(words, Todo.DELETE, details.get(logical, ""))
            for logical, words in names.items()
            if logical in found.resources
        ]
        if users := self._trusting(found):
            what, why = THINGS["OidcProvider"], f"kept: trusted by {', '.join(users)}"
            items = [Item(what, Todo.NOTHING, why) if item.what == what else item for item in items]
        return [Item(f"platform {STACK}", Todo.DELETE), *items]

    def _trusting(self, found: Found) -> list[str]:
        """Return the names of the roles that trust the provider of this platform's stack."""
        provider = found.resources.get("OidcProvider")
        return [
            f"role {role['RoleName']}"
            for role in (self.aws.pages("list_roles", "Roles", "iam") if provider else ())
            if f'"{provider}"' in json.dumps(role["AssumeRolePolicyDocument"])
        ]

    def _release_provider(self, found: Found, tell: Tell) -> None:
        """Delete the provider, which its stack leaves, unless roles trust it. Raise MlopsError if
        they do and the stack of an earlier version would delete it."""
        words = THINGS["OidcProvider"]
        if users := self._trusting(found):
            if not found.newer and str(found.version) != package.version():
                raise MlopsError(
                    f"{STACK} of version {found.version} would delete the {words}, which "
                    f"{', '.join(users)} trust: run {self.aws.command} bootstrap once, then this"
                )
            tell(f"{'kept':<12} {words}: {', '.join(users)} trust it")
        elif provider := found.resources.get("OidcProvider"):
            client = self.aws.client("iam")
            with ignoring("NoSuchEntity"):
                client.delete_open_id_connect_provider(OpenIDConnectProviderArn=provider)

    def undo(self, tell: Tell) -> None:
        stack = stacks.describe(self.aws, STACK)
        if stack is not None and stack.busy:
            tell(f"Waiting: {STACK} is {stack.status}")
            stacks.settle(self.aws, stack, _QUIET)
        found = self._find()
        if found.stack is None:
            return
        # Not its outputs: they may be gone if an earlier deletion stopped half way.
        held = {item.name: item.physical for item in stacks.resources(self.aws, found.stack)}
        self._release_provider(replace(found, resources=held), tell)
        # What the stack does not have, but what prevents its deletion.
        if portfolio := held.get("Portfolio"):
            for principal in catalog.principals(self.aws, portfolio):
                catalog.revoke(self.aws, portfolio, principal)
                tell(f"{'revoked':<12} {principal}")
        if bucket := held.get("ArtifactBucket"):
            count = objects.delete_versions(self.aws, bucket)
            tell(f"{'emptied':<12} bucket {bucket}, {count} objects")
        stacks.delete(self.aws, found.stack, _QUIET)
        tell(f"{'deleted':<12} {STACK}")


def others(aws: Aws) -> list[str]:
    """Return the names of the stacks that use the platform, without this repo's project."""
    there = outputs(aws)
    if there is None:
        return []
    own = projects.find(aws)
    users = set(exports.importers(aws, "BoundaryArn"))
    if product := there.get("ProductId"):
        users |= set(catalog.provisioned(aws, product))
    return sorted(users - {own.stack.name if own and own.stack else ""})


def object_url(aws: Aws, bucket: str, key: str) -> str:
    """Return the address of a template, as CloudFormation and Service Catalog take it."""
    return f"https://{bucket}.s3.{aws.settings.project.region}.amazonaws.com/{key}"


@dataclass
class Retry(Part):
    """A part that lets the platform act again after the credential's: an App needs the layer."""

    platform: Platform

    def act(self, tell: Tell) -> None:
        self.platform.act(tell)
