"""The SageMaker project of this repo: registry, code repository and roles, one stack of
project.yml, created by SageMaker through Service Catalog or from the template in S3.

A project that was created in Studio is as good as one created here.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from sm_mlops import github, projects, stacks
from sm_mlops import platform as package
from sm_mlops import tags as tagging
from sm_mlops.aws import ABSENT, Aws, described, error_code, exists, ignoring
from sm_mlops.bootstrap import assets, catalog, needs, platform, provisional, repository, templates
from sm_mlops.bootstrap.plan import Item, Part, Tell, Todo
from sm_mlops.bootstrap.platform import S3, Options
from sm_mlops.deployment import access, destroy
from sm_mlops.errors import MlopsError
from sm_mlops.github import GitHub
from sm_mlops.projects import Found
from sm_mlops.templates import parameters as parameters_of

TEMPLATE_NAME = "sm-mlops"
# Parameters that SageMaker sets.
GIVEN = ("SageMakerProjectName", "SageMakerProjectId")
BROKEN = ("CreateFailed", "DeleteFailed")
ROLE_SECONDS = 15.0
THINGS = {
    "ModelPackageGroup": "model package group {}",
    "CodeRepository": "code repository {}",
    "MetricsDashboard": "dashboard sm-mlops-{}",
    "PipelineRole": "role {}-pipeline",
    **{f"{each.name.title()}Role": f"role {each.name_in('{}')}" for each in projects.ACCESSES},
}
USERS = {
    f"{each.name.title()}User{more}": words
    for each in projects.ACCESSES
    for more, words in (
        ("", f"user {each.name_in('{}')}"),
        ("Secret", f"secret {each.secret_in('{}')}"),
    )
}
_REFUSED = ("ValidationException", "ResourceInUse", "ConflictException")


def _require(aws: Aws, found: Found | None) -> None:
    """Raise MlopsError unless the last operation succeeded."""
    name = aws.settings.project.project
    if found is None:
        raise MlopsError(f"project {name} has been deleted in the meantime")
    if found.status.endswith("Failed"):
        reason = " ".join(found.reason.split()) or "no reason was given"
        raise MlopsError(f"project {name} is {found.status}: {reason}")


def update(aws: Aws, found: Found, changes: Mapping[str, str], target: str = "") -> None:
    """Change parameters of the project and wait for the result. Raise MlopsError.

    `target` is a version of the product or the address of a template; empty keeps what it has.
    Source: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_UpdateProject.html
    """
    had = found.stack.parameters if found.stack else {}
    kept = {name: value for name, value in had.items() if name not in GIVEN}
    parameters = tagging.rows(kept | dict(changes))
    if found.provisioned:
        artifact = target or catalog.version_of(aws, found.provisioned)
        request: dict[str, Any] = {
            "ServiceCatalogProvisioningUpdateDetails": {
                "ProvisioningParameters": parameters,
                **({"ProvisioningArtifactId": artifact} if artifact else {}),
            }
        }
    else:
        provider = {
            "TemplateName": TEMPLATE_NAME,
            "TemplateURL": target or found.template_url,
            "Parameters": parameters,
        }
        request = {"TemplateProvidersToUpdate": [{"CfnTemplateProvider": provider}]}
    with access.keeping_group_policy(aws):
        aws.sagemaker.update_project(ProjectName=aws.settings.project.project, **request)
        updated = projects.wait(aws)
    _require(aws, updated)


@dataclass
class Project(Part):
    """A part of the plan. `hub` knows how GitHub writes the repository's name."""

    aws: Aws
    hub: GitHub
    options: Options = field(default_factory=Options)

    @property
    def name(self) -> str:
        return self.aws.settings.project.project

    def look(self) -> list[Item]:
        found = projects.find(self.aws)
        return [
            self._project_item(found),
            *self._things(found),
            *self._obstacles(found),
            *(Item(what, Todo.CHANGE, detail) for what, detail, _ in self._later(found)),
        ]

    def _project_item(self, found: Found | None) -> Item:
        what = f"SageMaker project {self.name}"
        if found is None:
            return Item(what, Todo.CREATE, f"by {self._way}")
        if found.status in BROKEN:
            return Item(what, Todo.CREATE, f"now {found.status}: {found.reason}")
        changes = self._changes(found)
        if found.moving:
            changes.insert(0, f"now {found.status}")
        todo = Todo.CHANGE if changes else Todo.NOTHING
        return Item(what, todo, "; ".join(changes))

    @property
    def _way(self) -> str:
        return "the template in S3" if self.options.template_provider == S3 else "Service Catalog"

    def _held(self, found: Found | None) -> dict[str, str]:
        """Return the physical names of what the project's stack holds, by logical name."""
        if found is None or found.stack is None:
            return {}
        return {item.name: item.physical for item in stacks.resources(self.aws, found.stack)}

    def _things(self, found: Found | None) -> list[Item]:
        held = self._held(found) if found and found.status not in BROKEN else {}
        wanted = set(THINGS) | (set(USERS) if self.aws.settings.project.uses_key else set())
        if found and found.stack and found.stack.parameters.get("Dashboard") == "no":
            wanted.discard("MetricsDashboard")
        items = []
        for logical, words in (THINGS | USERS).items():
            what = words.format(self.name)
            if logical in held:
                items.append(Item(what, Todo.NOTHING))
            elif logical == "ModelPackageGroup" and self._group_tags is not None:
                items.append(Item(what, Todo.NOTHING, "exists already; the project uses it"))
            elif logical in wanted and not (found and found.moving):
                items.append(Item(what, Todo.CREATE))
        return items

    def _obstacles(self, found: Found | None) -> list[Item]:
        """Return roles that have the names of the project's, and are not the project's."""
        if found is not None and found.status not in BROKEN:
            return []
        known = set(self._held(found).values())
        if self.aws.sandbox and provisional.exists(self.aws):
            known.add(provisional.role_name(self.aws))
        roles = [access.name_in(self.name) for access in projects.ACCESSES]
        get_role = self.aws.client("iam").get_role
        detail = "exists already and does not belong to the project"
        how = "delete the role {}, then run this command again"
        return [
            Item(f"role {role}", Todo.PERSON, detail, how.format(role))
            for role in (f"{self.name}-pipeline", *roles)
            if role not in known and exists(get_role, RoleName=role)
        ]

    @property
    def _group_tags(self) -> dict[str, str] | None:
        """Tags of the model package group; None if it does not exist."""
        name = self.aws.settings.model_package_group
        describe = self.aws.sagemaker.describe_model_package_group
        if not exists(describe, ModelPackageGroupName=name):
            return None
        tags = self.aws.pages("list_tags", "Tags", ResourceArn=self._group_arn)
        return {tag["Key"]: tag["Value"] for tag in tags}

    @property
    def _group_arn(self) -> str:
        name = self.aws.settings.model_package_group
        return self.aws.arn("sagemaker", f"model-package-group/{name}")

    def _needed(self, had: Mapping[str, str]) -> dict[str, str]:
        """Return the parameters that this repo determines."""
        settings = self.aws.settings
        owner, name = repository.names(self.hub, settings)
        data = needs.data_locations(self.aws)
        needed = {
            "GitHubOwner": owner,
            "GitHubRepository": name,
            "GitHost": settings.project.git_host,
            "SignIn": "iam-user" if settings.project.uses_key else "oidc",
            "DeploymentAccounts": needs.joined(access.foreign_accounts(self.aws)),
            # Somebody may have added others in Studio.
            "DataLocations": needs.merged(had.get("DataLocations", ""), data),
            # Cached steps, champions and earlier versions stay encrypted with a former key.
            "KmsKeyArn": needs.merged(had.get("KmsKeyArn", ""), needs.key_arns(self.aws)),
        }
        if settings.project.owner != tagging.NOBODY:
            needed["Owner"] = settings.project.owner
        there = self.hub.repository(settings.project.github)
        if there is not None:
            needed["GitHubRepositoryId"] = str(there.id)
            subject = github.subject(self.hub, there, needed=not settings.project.uses_key)
            needed |= {"GitHubSubject": subject} if subject else {}
        if settings.aws.subnets:
            needed["Vpc"] = "yes"
        image = needs.image_repository(self.aws)
        if image or had.get("ImageRepository"):
            needed["ImageRepository"] = image
        return needed | self._unchangeable(had) | self._address(had, owner, name)

    def _unchangeable(self, had: Mapping[str, str]) -> dict[str, str]:
        """Return the description of the project's group, if an earlier version gave it another."""
        if had.get("Registry") != "new":
            return {}
        name = self.aws.settings.model_package_group
        group = described(
            self.aws.sagemaker.describe_model_package_group, ModelPackageGroupName=name
        )
        description = group.get("ModelPackageGroupDescription", "")
        ours = f"Versions of {self.name}"
        return {"RegistryDescription": description} if description not in ("", ours) else {}

    def _address(self, had: Mapping[str, str], owner: str, name: str) -> dict[str, str]:
        """Return the platform's connection, and the name in Studio of a repository whose address
        changes: SageMaker changes no repository's address."""
        connection = (platform.outputs(self.aws) or {}).get("ConnectionArn", "")
        if not connection:
            return {}
        # Without one of its own, a project has the platform's.
        before = had.get("ConnectionArn") or connection
        now = (owner, name, connection)
        if not had or now == (had["GitHubOwner"], had["GitHubRepository"], before):
            return {"ConnectionArn": connection}
        digest = hashlib.sha256("/".join(now).encode()).hexdigest()[:8]
        return {"ConnectionArn": connection, "CodeRepositoryName": f"{self.name}-{digest}"}

    def _changes(self, found: Found) -> list[str]:
        """Return how project and repo differ, in words."""
        lines = []
        if found.status == "UpdateFailed":
            lines.append(f"now {found.status}: {found.reason}")
        if upgrade := templates.look(self.aws).upgrade(found):
            lines.append(upgrade)
        if found.stack is not None:
            had = found.stack.parameters
            self._require_own(had)
            lines += [
                f"{name} {value or 'empty'}"
                for name, value in self._needed(had).items()
                if name in had and sorted(needs.items(had[name])) != sorted(needs.items(value))
            ]
        return lines

    def _require_own(self, had: Mapping[str, str]) -> None:
        """Raise MlopsError for the project of another repository. One that was renamed or moved
        keeps its number."""
        needed, same = self._needed(had), ("GitHost", "GitHubRepositoryId")
        if needed.get(same[1]) and all(had.get(name) == needed[name] for name in same):
            return
        theirs = f"{had.get('GitHubOwner', '')}/{had.get('GitHubRepository', '')}"
        ours = f"{needed['GitHubOwner']}/{needed['GitHubRepository']}"
        if theirs.lower() != ours.lower():
            raise MlopsError(
                f"the SageMaker project {self.name} belongs to {theirs}, not to {ours}: name "
                "another project in pyproject.toml; if the repository has moved, set "
                "GitHubRepositoryId of the project in Studio to the number of the repository"
            )

    def _later(self, found: Found | None) -> list[tuple[str, str, Callable[[], Any]]]:
        """Return what CloudFormation does not do: what, a detail, and a function that does it."""
        if found is None or found.stack is None or found.moving or found.status in BROKEN:
            return []
        todo: list[tuple[str, str, Callable[[], Any]]] = []
        tags = {
            **self.aws.settings.project.resource_tags(),
            "sagemaker:project-name": self.name,
            "sagemaker:project-id": found.identifier,
        }
        existed = found.stack.parameters.get("Registry") == "existing"
        had = self._group_tags if existed else None
        if had is not None and not tags.items() <= had.items():
            what = f"tags of model package group {self.name}"
            request = {"ResourceArn": self._group_arn, "Tags": tagging.rows(tags)}
            add = partial(self.aws.sagemaker.add_tags, **request)
            todo.append((what, "so that the project shows it", add))
        accounts = access.foreign_accounts(self.aws)
        grants = access.readable(self.aws, accounts, self.aws.settings.image)
        todo += [(grant.what, "; ".join(grant.lines), grant.apply) for grant in grants]
        return todo

    def act(self, tell: Tell) -> None:
        found = projects.settled(self.aws, tell)
        if found is not None and found.status in BROKEN:
            self._delete(found, tell)
            found = None
        if found is None:
            self._create(tell)
        else:
            self._bring_up_to_date(found, tell)
        for what, _, do in self._later(projects.find(self.aws)):
            do()
            tell(f"{'changed':<12} {what}")

    def _create(self, tell: Tell, attempts: int = 4) -> None:
        there = platform.outputs(self.aws)
        if there is None:
            raise MlopsError(f"there is no platform {platform.STACK} to create a project in")
        if self.aws.sandbox:
            provisional.remove(self.aws)
        for item in self._obstacles(None):
            raise MlopsError(f"{item.what} {item.detail}: {item.remedy}")
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
            # The answer to a first attempt was lost, or someone else was faster.
            if error_code(error) not in _REFUSED or projects.find(self.aws) is None:
                if attempts == 1 or "assum" not in str(error):
                    raise
                return self._create_later(tell, attempts)
        made = projects.wait(self.aws)
        if made and made.status in BROKEN and attempts > 1 and "assum" in made.reason:
            return self._create_later(tell, attempts, made)
        _require(self.aws, made)
        tell(f"{'created':<12} SageMaker project {self.name}, by {self._way}")

    def _create_later(self, tell: Tell, attempts: int, failed: Found | None = None) -> None:
        """Try again once IAM has told the other services of the launch role, if that is new."""
        tell("Waiting: the launch role is not known everywhere yet")
        time.sleep(ROLE_SECONDS)
        if failed:
            self._delete(failed, tell)
        self._create(tell, attempts - 1)

    def _source(self, there: Mapping[str, str], given: Mapping[str, str]) -> dict[str, Any]:
        chosen = templates.look(self.aws)
        if self.options.template_provider == S3:
            provider = {
                "TemplateName": TEMPLATE_NAME,
                "TemplateURL": chosen.address(),
                "RoleARN": there["LaunchRoleArn"],
                "Parameters": tagging.rows(given),
            }
            return {"TemplateProviders": [{"CfnTemplateProvider": provider}]}
        catalog.await_launch_path(self.aws, there["ProductId"])
        details = {
            "ProductId": there["ProductId"],
            "ProvisioningArtifactId": chosen.offered().identifier,
            "ProvisioningParameters": tagging.rows(given),
        }
        return {"ServiceCatalogProvisioningDetails": details}

    def _bring_up_to_date(self, found: Found, tell: Tell) -> None:
        changes = self._changes(found)
        if not changes:
            return
        had = found.stack.parameters if found.stack else {}
        target = ""
        known = set(had)
        chosen = templates.look(self.aws)
        if chosen.upgrade(found):
            target = chosen.offered().identifier if found.provisioned else chosen.address()
            known |= set(parameters_of(package.FOLDER / assets.PROJECT))
        changed = {name: value for name, value in self._needed(had).items() if name in known}
        update(self.aws, found, changed, target)
        tell(f"{'changed':<12} SageMaker project {self.name}: {'; '.join(changes)}")

    def _delete(self, found: Found, tell: Tell) -> None:
        self._restore(found, tell)
        try:
            self.aws.sagemaker.delete_project(ProjectName=self.name)
        except ClientError as error:
            # The answer to a first attempt was lost: it is being deleted, or gone.
            now = projects.find(self.aws)
            going = now is None or now.status == "DeleteInProgress"
            if error_code(error) not in (*ABSENT, *_REFUSED) or not going:
                raise
        if left := projects.wait(self.aws):
            _require(self.aws, left)
        tell(f"{'deleted':<12} SageMaker project {self.name}")

    def _restore(self, found: Found, tell: Tell) -> None:
        """Create again, empty, what was deleted by hand and is still in the project's stack.

        The role that deletes the stack may delete what has a project's tag. What is gone has none,
        so IAM refuses where SageMaker would report it missing, and the deletion fails.
        """
        held = {name: item.rpartition("/")[2] for name, item in self._held(found).items()}
        tags = tagging.rows({"project": self.name})
        sagemaker, settings = self.aws.sagemaker, self.aws.settings
        if (name := held.get("ModelPackageGroup")) and self._group_tags is None:
            sagemaker.create_model_package_group(ModelPackageGroupName=name, Tags=tags)
            tell(f"{'restored':<12} model package group {name}, to be deleted with the project")
        name = held.get("CodeRepository")
        if name and not exists(sagemaker.describe_code_repository, CodeRepositoryName=name):
            sagemaker.create_code_repository(
                CodeRepositoryName=name,
                GitConfig={"RepositoryUrl": f"{settings.project.repository}.git"},
                Tags=tags,
            )
            tell(f"{'restored':<12} code repository {name}, to be deleted with the project")

    def look_back(self) -> list[Item]:
        """Raise MlopsError while there are endpoints, or versions that would be left over."""
        self._refuse_while_used()
        found = projects.find(self.aws)
        items = []
        for pipeline in self._pipelines():
            what = f"SageMaker pipeline {pipeline}"
            items.append(Item(what, Todo.DELETE, "with the history of its executions"))
        if found is None:
            return items
        items.append(Item(f"SageMaker project {self.name}", Todo.DELETE))
        held = self._held(found) if found.status not in BROKEN else {}
        items += [
            Item(words.format(self.name), Todo.DELETE)
            for logical, words in THINGS.items()
            if logical in held
        ]
        if "ModelPackageGroup" not in held and self._group_tags is not None:
            what = THINGS["ModelPackageGroup"].format(self.name)
            items.append(Item(what, Todo.NOTHING, "kept: older than the project"))
        return items

    def _refuse_while_used(self) -> None:
        up = [
            each.stage.name
            for each in (destroy.look(self.aws, one) for one in destroy.chosen(self.aws, None))
            if not each.empty
        ]
        command = self.aws.command
        if up:
            raise MlopsError(f"still deployed: {', '.join(up)}; run {command} destroy --all first")
        if destroy.executing(self.aws):
            raise MlopsError(f"a training or check is running; {command} destroy --all stops it")
        versions = destroy.kept(self.aws).versions
        if versions and "ModelPackageGroup" in self._held(projects.find(self.aws)):
            noun = "version" if versions == 1 else "versions"
            raise MlopsError(
                f"the registry {self.name} holds {versions} {noun}, which are not in the "
                f"stack; run {command} destroy --all --registry first"
            )

    def undo(self, tell: Tell) -> None:
        self._refuse_while_used()
        for pipeline in self._pipelines():
            # Already deleted if the answer to a first attempt was lost.
            with ignoring(*ABSENT):
                self.aws.sagemaker.delete_pipeline(PipelineName=pipeline)
            tell(f"{'deleted':<12} SageMaker pipeline {pipeline}")
        found = projects.settled(self.aws, tell)
        if found is not None:
            self._delete(found, tell)

    def _pipelines(self) -> list[str]:
        """Return those that exist of the pipelines of `mlops run`, which are in no stack."""
        names = self.aws.settings.pipeline, self.aws.settings.monitor_pipeline
        describe = self.aws.sagemaker.describe_pipeline
        return [name for name in names if exists(describe, PipelineName=name)]
