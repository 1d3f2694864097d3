"""The SageMaker project of this repo: registry, code repository and roles, one stack of
infra/project.yml, made by SageMaker through Service Catalog or from the template in S3.

A project that was made in Studio is as good as one made here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sm_mlops import platform as package
from sm_mlops import stacks
from sm_mlops.aws import ABSENT, Aws, error_code, exists
from sm_mlops.bootstrap import assets, catalog, needs, platform
from sm_mlops.bootstrap.catalog import ProductVersion
from sm_mlops.bootstrap.plan import Item, Tell, Todo
from sm_mlops.bootstrap.platform import S3, Options
from sm_mlops.deployment import access, stages
from sm_mlops.errors import MlopsError
from sm_mlops.stacks import Stack

if TYPE_CHECKING:
    from sm_mlops.github import GitHub

TEMPLATE = "project.yml"
TEMPLATE_NAME = "sm-mlops"
# What SageMaker gives by itself.
GIVEN = ("SageMakerProjectName", "SageMakerProjectId")
BROKEN = ("CreateFailed", "DeleteFailed")
THINGS = {
    "ModelPackageGroup": "model package group {}",
    "CodeRepository": "code repository {}",
    "PipelineRole": "role {}-pipeline",
    "GitHubRole": "role {}-github",
    "GitHubUser": "user {}-github",
    "GitHubUserSecret": "secret sm-mlops/{}/github-user",
}
_REFUSED = ("ValidationException", "ResourceInUse", "ConflictException")


@dataclass(frozen=True)
class Found:
    """A project as it is. `provisioned` is Service Catalog's identifier of what it made, empty
    where the template came from S3; `template_url` is empty where it did not."""

    status: str
    identifier: str
    provisioned: str
    template_url: str
    stack: Stack | None
    reason: str

    @property
    def moving(self) -> bool:
        return self.status == "Pending" or self.status.endswith("InProgress")


def find(aws: Aws) -> Found | None:
    """The project of this repo's name; None when there is none."""
    from botocore.exceptions import ClientError

    try:
        shown = aws.sagemaker.describe_project(ProjectName=aws.settings.project.project)
    except ClientError as error:
        if error_code(error) not in ABSENT:
            raise
        return None
    if shown["ProjectStatus"] == "DeleteCompleted":
        return None
    product = shown.get("ServiceCatalogProvisionedProductDetails", {})
    details = shown.get("TemplateProviderDetails") or [{}]
    template = details[0].get("CfnTemplateProviderDetail", {})
    detail = template.get("StackDetail", {})
    provisioned = product.get("ProvisionedProductId", "")
    name = catalog.stack_name(aws, provisioned) if provisioned else detail.get("Id", "")
    return Found(
        status=shown["ProjectStatus"],
        identifier=shown["ProjectId"],
        provisioned=provisioned,
        template_url=template.get("TemplateURL", ""),
        stack=stacks.describe(aws, name) if name else None,
        reason=product.get("ProvisionedProductStatusMessage") or detail.get("StatusMessage", ""),
    )


def outputs(aws: Aws) -> dict[str, str] | None:
    """The outputs of the project's stack; None where there is no project, or only a beginning."""
    found = find(aws)
    if found is None or found.stack is None or not found.stack.outputs.get("PipelineRoleArn"):
        return None
    return found.stack.outputs


def update(aws: Aws, changes: Mapping[str, str], tell: Tell) -> None:
    """Gives parameters of the project other values and waits for the end. Raises MlopsError."""
    found = settled(aws, tell)
    if found is None or found.stack is None:
        name = aws.settings.project.project
        raise MlopsError(f"there is no SageMaker project {name} yet: {aws.command} bootstrap")
    unknown = sorted(set(changes) - set(found.stack.parameters))
    if unknown:
        raise MlopsError(
            f"the project is of an older version, which has no {', '.join(unknown)}: "
            f"{aws.command} bootstrap brings it up to date"
        )
    _update(aws, found, {**_own(found.stack.parameters), **changes}, "")
    _require(aws, _wait(aws))


def settled(aws: Aws, tell: Tell) -> Found | None:
    """The project once nothing is under way any more."""
    found = find(aws)
    if found is None or not found.moving:
        return found
    tell(f"project {aws.settings.project.project} is {found.status}: waiting for that to end")
    return _wait(aws)


def _wait(aws: Aws) -> Found | None:
    began = time.monotonic()
    while True:
        found = find(aws)
        if found is None or not found.moving:
            return found
        time.sleep(stacks.pause(began))


def _require(aws: Aws, found: Found | None) -> Found:
    """Raises MlopsError unless the last operation has gone well."""
    name = aws.settings.project.project
    if found is None:
        raise MlopsError(f"somebody has deleted the project {name} meanwhile")
    if found.status.endswith("Failed"):
        reason = " ".join(found.reason.split()) or "no reason was given"
        raise MlopsError(f"project {name} is {found.status}: {reason}")
    return found


def _own(parameters: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in parameters.items() if name not in GIVEN}


def _rows(parameters: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in parameters.items()]


def _update(aws: Aws, found: Found, parameters: Mapping[str, str], target: str) -> None:
    """`target` is a version of the product or the template's address; empty: as it is.

    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateProject.html
    """
    if found.provisioned:
        artifact = target or catalog.version_of(aws, found.provisioned)
        request: dict[str, Any] = {
            "ServiceCatalogProvisioningUpdateDetails": {
                "ProvisioningParameters": _rows(parameters),
                **({"ProvisioningArtifactId": artifact} if artifact else {}),
            }
        }
    else:
        provider = {
            "TemplateName": TEMPLATE_NAME,
            "TemplateURL": target or found.template_url,
            "Parameters": _rows(parameters),
        }
        request = {"TemplateProvidersToUpdate": [{"CfnTemplateProvider": provider}]}
    aws.sagemaker.update_project(ProjectName=aws.settings.project.project, **request)


@dataclass
class Project:
    """A part of the plan. `hub` tells how GitHub writes the repository's name."""

    aws: Aws
    hub: GitHub
    options: Options = field(default_factory=Options)

    @property
    def name(self) -> str:
        return self.aws.settings.project.project

    # What there is

    def look(self) -> list[Item]:
        found, place = find(self.aws), needs.place(self.aws)
        held = self._held(found)
        return [
            self._project_item(found, place),
            *self._things(found, held, place),
            *self._obstacles(found, place),
            *(Item(place, what, Todo.CHANGE, detail) for what, detail, _ in self._later(found)),
        ]

    def _project_item(self, found: Found | None, place: str) -> Item:
        what = f"SageMaker project {self.name}"
        if found is None:
            return Item(place, what, Todo.CREATE, f"by {self._way}")
        if found.status in BROKEN:
            return Item(place, what, Todo.CREATE, f"now {found.status}: {found.reason}")
        changes = self._changes(found)
        if found.moving:
            changes.insert(0, f"now {found.status}")
        todo = Todo.CHANGE if changes else Todo.NOTHING
        return Item(place, what, todo, "; ".join(changes))

    @property
    def _way(self) -> str:
        s3 = self.options.template_provider == S3
        return "the template in S3" if s3 else "Service Catalog"

    def _held(self, found: Found | None) -> set[str]:
        if found is None or found.stack is None or found.status in BROKEN:
            return set()
        return {item.name for item in stacks.resources(self.aws, found.stack)}

    def _things(self, found: Found | None, held: set[str], place: str) -> list[Item]:
        wanted = set(THINGS)
        if not self.aws.settings.project.uses_key:
            wanted -= {"GitHubUser", "GitHubUserSecret"}
        items = []
        for logical, words in THINGS.items():
            what = words.format(self.name)
            if logical in held:
                items.append(Item(place, what, Todo.NOTHING))
            elif logical == "ModelPackageGroup" and self._group_tags is not None:
                items.append(Item(place, what, Todo.NOTHING, "there already; the project uses it"))
            elif logical in wanted and not (found and found.moving):
                items.append(Item(place, what, Todo.CREATE))
        return items

    def _obstacles(self, found: Found | None, place: str) -> list[Item]:
        """Roles of the names that the project gives, which nobody may have before."""
        if found is not None and found.status not in BROKEN:
            return []
        kept = set()
        if self.aws.sandbox:
            from sm_mlops.bootstrap import provisional

            if provisional.exists(self.aws):
                kept.add(f"{self.name}-pipeline")
        held = {item.physical for item in self._leftovers(found)}
        get_role = self.aws.client("iam").get_role
        return [
            Item(
                place,
                f"role {role}",
                Todo.PERSON,
                "there already, and not the project's",
                f"delete or rename the role {role}, then give this command again",
            )
            for role in (f"{self.name}-pipeline", f"{self.name}-github")
            if role not in kept | held and exists(get_role, RoleName=role)
        ]

    def _leftovers(self, found: Found | None) -> list[stacks.Resource]:
        stack = found.stack if found else None
        return stacks.resources(self.aws, stack) if stack else []

    @property
    def _group_tags(self) -> dict[str, str] | None:
        """Tags of the model package group; None where there is none."""
        from botocore.exceptions import ClientError

        try:
            group = self.aws.sagemaker.describe_model_package_group(
                ModelPackageGroupName=self.aws.settings.model_package_group
            )
        except ClientError as error:
            if error_code(error) not in ABSENT:
                raise
            return None
        arn = group["ModelPackageGroupArn"]
        tags = self.aws.pages("list_tags", "Tags", ResourceArn=arn)
        return {tag["Key"]: tag["Value"] for tag in tags}

    # What it should be

    @cached_property
    def _data(self) -> tuple[str, ...]:
        return needs.data_locations(self.aws)

    def _needed(self, had: Mapping[str, str]) -> dict[str, str]:
        """The parameters that this repo has something to say about."""
        from sm_mlops import github
        from sm_mlops.bootstrap import repository

        settings = self.aws.settings
        owner, name = repository.names(self.hub, settings)
        needed = {
            "GitHubOwner": owner,
            "GitHubRepository": name,
            "GitHost": settings.project.git_host,
            "SignIn": "iam-user" if settings.project.uses_key else "oidc",
            "DeploymentAccounts": needs.joined(needs.accounts(self.aws)),
            # More than these may have been wanted in Studio.
            "DataLocations": needs.united(had.get("DataLocations", ""), self._data),
        }
        there = self.hub.repository(settings.project.github)
        if there is not None and (subject := github.subject(self.hub, there)):
            needed["GitHubSubject"] = subject
        if key := needs.key_arn(self.aws):
            needed["KmsKeyArn"] = key
        if settings.aws.subnets:
            needed["Vpc"] = "yes"
        return needed

    def _changes(self, found: Found) -> list[str]:
        """How project and repo differ, in words."""
        lines = []
        if found.stack is not None:
            had = found.stack.parameters
            self._require_own(had)
            lines = [f"{name} {value or 'empty'}" for name, value in self._differing(had).items()]
        if newer := self._newer(found):
            lines.insert(0, newer)
        if found.status == "UpdateFailed":
            lines.insert(0, f"now {found.status}: {found.reason}")
        return lines

    def _require_own(self, had: Mapping[str, str]) -> None:
        """Raises MlopsError for a project of another repository: it must not change hands
        unasked."""
        needed = self._needed(had)
        theirs = f"{had.get('GitHubOwner', '')}/{had.get('GitHubRepository', '')}"
        ours = f"{needed['GitHubOwner']}/{needed['GitHubRepository']}"
        if theirs.lower() != ours.lower():
            raise MlopsError(
                f"the SageMaker project {self.name} is of {theirs}, not of {ours}: give one of the "
                "two another project (pyproject.toml, [tool.mlops]); if the repository has moved, "
                "change GitHubOwner and GitHubRepository of the project in Studio"
            )
        if theirs != ours:
            # Policies compare letter by letter, and SageMaker changes no repository's address.
            raise MlopsError(
                f"the SageMaker project {self.name} writes {theirs} what GitHub writes {ours}, so "
                "that its workflows cannot sign in: delete the project in Studio, then give this "
                "command again"
            )

    def _differing(self, had: Mapping[str, str]) -> dict[str, str]:
        return {
            name: value
            for name, value in self._needed(had).items()
            if name in had and _plain(had[name]) != _plain(value)
        }

    def _newer(self, found: Found) -> str:
        """Which version of the template is to take the place of the project's, in words; empty for
        none."""
        parameters, known = self._platform
        if found.provisioned:
            at = catalog.version_of(self.aws, found.provisioned)
            had = next((item.template for item in known if item.identifier == at), "")
        else:
            had = assets.template_in(found.template_url)
        chosen = self._chosen(parameters, known)
        # One that somebody has made by hand is left alone.
        if had in ("", chosen):
            return ""
        theirs, ours = (
            platform.version(assets.version_of(key)) for key in (had, self._own_template)
        )
        ahead = platform.is_ahead(self.aws.settings, parameters)
        if theirs > ours or (theirs == ours and ahead):
            return ""
        return f"version {' -> '.join(catalog.name_for(known, key) for key in (had, chosen))}"

    @property
    def _platform(self) -> tuple[Mapping[str, str], list[ProductVersion]]:
        """Its parameters, and the versions of its product."""
        stack = stacks.describe(self.aws, platform.STACK)
        if stack is None or not stack.outputs.get("ProductId"):
            return {}, []
        return stack.parameters, catalog.versions(self.aws, stack.outputs["ProductId"])

    @cached_property
    def _own_template(self) -> str:
        return assets.build(self.aws.settings, layer=False).template

    def _chosen(self, parameters: Mapping[str, str], known: Sequence[ProductVersion]) -> str:
        """The template of this repo, or the newest: of an outdated one no project can be made."""
        newest = catalog.newest(known)
        if newest and platform.is_ahead(self.aws.settings, parameters):
            return newest.template
        return self._own_template

    def _later(self, found: Found | None) -> list[tuple[str, str, Any]]:
        """What CloudFormation does not do for a group that it has not made: words, detail, and how
        it is done."""
        if found is None or found.stack is None or found.moving or found.status in BROKEN:
            return []
        todo: list[tuple[str, str, Any]] = []
        if found.stack.parameters.get("Registry") == "existing":
            tags = {
                "project": self.name,
                "sagemaker:project-name": self.name,
                "sagemaker:project-id": found.identifier,
            }
            had = self._group_tags
            if had is not None and not tags.items() <= had.items():
                what = f"tags of model package group {self.name}"
                todo.append((what, "shown in the project", lambda: self._tag_group(tags)))
            if accounts := needs.accounts(self.aws):
                grants = access.plan(self.aws, accounts)
                todo += [(grant.what, "; ".join(grant.lines), grant.apply) for grant in grants]
        return todo

    def _tag_group(self, tags: Mapping[str, str]) -> None:
        group = self.aws.sagemaker.describe_model_package_group(
            ModelPackageGroupName=self.aws.settings.model_package_group
        )
        self.aws.sagemaker.add_tags(
            ResourceArn=group["ModelPackageGroupArn"],
            Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
        )

    # Doing it

    def act(self, tell: Tell) -> None:
        found = settled(self.aws, tell)
        if found is not None and found.status in BROKEN:
            self._delete(found, tell)
            found = None
        if found is None:
            self._create(tell)
        else:
            self._bring_up_to_date(found, tell)
        for what, _, do in self._later(find(self.aws)):
            do()
            tell(f"{'changed':<12} {what}")

    def _create(self, tell: Tell) -> None:
        from botocore.exceptions import ClientError

        there = platform.outputs(self.aws)
        if there is None:
            raise MlopsError(f"there is no platform {platform.STACK} to make a project with")
        if self.aws.sandbox:
            from sm_mlops.bootstrap import provisional

            provisional.remove(self.aws)
        for item in self._obstacles(None, ""):
            raise MlopsError(f"{item.what} is {item.detail}: {item.remedy}")
        given = {name: value for name, value in self._needed({}).items() if value}
        if self._group_tags is not None:
            given["Registry"] = "existing"
        source = self._source(there, given)
        try:
            self.aws.sagemaker.create_project(
                ProjectName=self.name,
                ProjectDescription=f"Models of {given['GitHubOwner']}/{given['GitHubRepository']}",
                **source,
            )
        except ClientError as error:
            # The answer to a first attempt was lost, or somebody else was quicker.
            if error_code(error) not in _REFUSED or find(self.aws) is None:
                raise
        _require(self.aws, _wait(self.aws))
        tell(f"{'created':<12} SageMaker project {self.name}, by {self._way}")

    def _source(self, there: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        chosen = self._offered()
        if self.options.template_provider == S3:
            provider = {
                "TemplateName": TEMPLATE_NAME,
                "TemplateURL": self._url(there, chosen),
                "RoleARN": there["LaunchRoleArn"],
                "Parameters": _rows(given),
            }
            return {"TemplateProviders": [{"CfnTemplateProvider": provider}]}
        details = {
            "ProductId": there["ProductId"],
            "ProvisioningArtifactId": chosen.identifier,
            "ProvisioningParameters": _rows(given),
        }
        return {"ServiceCatalogProvisioningDetails": details}

    def _url(self, there: Mapping[str, str], item: ProductVersion) -> str:
        return platform.object_url(self.aws, there["ArtifactBucket"], item.template)

    def _offered(self) -> ProductVersion:
        """The product's version of the template that is chosen. Raises MlopsError."""
        parameters, known = self._platform
        found = catalog.version_with(known, self._chosen(parameters, known))
        if found is None and (found := catalog.newest(known)) is None:
            raise MlopsError(f"the product of {platform.STACK} has no version")
        return found

    def _bring_up_to_date(self, found: Found, tell: Tell) -> None:
        changes = self._changes(found)
        if not changes:
            return
        had = found.stack.parameters if found.stack else {}
        needed = self._needed(had)
        target = ""
        known = set(had)
        if self._newer(found):
            there = platform.outputs(self.aws) or {}
            offered = self._offered()
            target = offered.identifier if found.provisioned else self._url(there, offered)
            known |= set(stages.template_parameters(self._template))
        parameters = _own(had) | {key: value for key, value in needed.items() if key in known}
        _update(self.aws, found, parameters, target)
        _require(self.aws, _wait(self.aws))
        tell(f"{'changed':<12} SageMaker project {self.name}: {'; '.join(changes)}")

    @property
    def _template(self) -> Any:
        return package.FOLDER / TEMPLATE

    def _delete(self, found: Found, tell: Tell) -> None:
        from botocore.exceptions import ClientError

        self._restore(found, tell)
        try:
            self.aws.sagemaker.delete_project(ProjectName=self.name)
        except ClientError as error:
            # The answer to a first attempt was lost: it is going, or gone.
            now = find(self.aws)
            going = now is None or now.status == "DeleteInProgress"
            if error_code(error) not in (*ABSENT, *_REFUSED) or not going:
                raise
        left = _wait(self.aws)
        if left is not None:
            _require(self.aws, left)
        tell(f"{'deleted':<12} SageMaker project {self.name}")

    def _restore(self, found: Found, tell: Tell) -> None:
        """Makes again, empty, what somebody has deleted by hand and the project's stack still
        holds.

        The role that deletes it may delete what has a project's tag. What is gone has none, so that
        IAM refuses where SageMaker would say that there is nothing, and the stack stays.
        """
        held = {item.name: item.physical.rpartition("/")[2] for item in self._leftovers(found)}
        tags = [{"Key": "project", "Value": self.name}]
        if (name := held.get("ModelPackageGroup")) and self._group_tags is None:
            self.aws.sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=tags)
            tell(f"{'restored':<12} model package group {name}, to be deleted with the project")
        if (name := held.get("CodeRepository")) and not self._has_code_repository(name):
            address = f"https://{self.aws.settings.project.git_host}/"
            self.aws.sagemaker.create_code_repository(
                CodeRepositoryName=name,
                GitConfig={"RepositoryUrl": f"{address}{self.aws.settings.project.github}.git"},
                Tags=tags,
            )
            tell(f"{'restored':<12} code repository {name}, to be deleted with the project")

    # Taking it away

    def look_back(self) -> list[Item]:
        """Raises MlopsError while there are endpoints, or versions that would be left over."""
        self._refuse_while_used()
        found, place = find(self.aws), needs.place(self.aws)
        items = []
        if self._has_pipeline():
            what = f"SageMaker pipeline {self.aws.settings.pipeline}"
            items.append(Item(place, what, Todo.DELETE, "with the record of its executions"))
        if found is None:
            return items
        items.append(Item(place, f"SageMaker project {self.name}", Todo.DELETE))
        held = self._held(found)
        items += [
            Item(place, words.format(self.name), Todo.DELETE)
            for logical, words in THINGS.items()
            if logical in held
        ]
        if "ModelPackageGroup" not in held and self._group_tags is not None:
            what = THINGS["ModelPackageGroup"].format(self.name)
            items.append(Item(place, what, Todo.NOTHING, "was there before the project: stays"))
        return items

    def _refuse_while_used(self) -> None:
        from sm_mlops.deployment import destroy

        up = [
            each.stage.name
            for each in (destroy.look(self.aws, one) for one in destroy.chosen(self.aws, None))
            if not each.empty
        ]
        command = self.aws.command
        if up:
            raise MlopsError(
                f"still deployed: {', '.join(up)}: {command} destroy --all takes them away first"
            )
        if destroy.executing(self.aws):
            raise MlopsError(f"a training is running: {command} destroy --all stops it first")
        found = find(self.aws)
        held = self._held(found)
        versions = destroy.kept(self.aws).versions
        if versions and "ModelPackageGroup" in held:
            noun = "version" if versions == 1 else "versions"
            raise MlopsError(
                f"the registry {self.name} holds {versions} {noun}, which no stack deletes: "
                f"{command} destroy --all --registry takes them away first"
            )

    def undo(self, tell: Tell) -> None:
        self._refuse_while_used()
        if self._has_pipeline():
            self._delete_pipeline(tell)
        found = settled(self.aws, tell)
        if found is not None:
            self._delete(found, tell)

    def _has_pipeline(self) -> bool:
        return exists(self.aws.sagemaker.describe_pipeline, PipelineName=self.aws.settings.pipeline)

    def _has_code_repository(self, name: str) -> bool:
        return exists(self.aws.sagemaker.describe_code_repository, CodeRepositoryName=name)

    def _delete_pipeline(self, tell: Tell) -> None:
        """The one that `mlops run` has made, which no stack holds."""
        from botocore.exceptions import ClientError

        name = self.aws.settings.pipeline
        try:
            self.aws.sagemaker.delete_pipeline(PipelineName=name)
        except ClientError as error:
            # Gone where the answer to a first attempt was lost.
            if error_code(error) not in ABSENT:
                raise
        tell(f"{'deleted':<12} SageMaker pipeline {name}")


def _plain(value: str) -> tuple[str, ...]:
    """A list says the same in any order; what is none is compared as it is."""
    return tuple(sorted(needs.items(value)))
