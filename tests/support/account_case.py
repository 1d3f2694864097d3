"""Everything that an account, its GitHub and a repo's clone hold, for comparing two of them.

What is new each time (identifiers, times, keys) is described only by its kind.
"""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from direct_case import Clients
from sm_mlops import projects

State = dict[str, Any]
Client = Callable[[str], Any]
IDENTIFIERS = (
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"), "UUID"),
    (re.compile(r"\b(prodview|prod|port|pa|cons|pp|p|rec)-[a-z0-9]{10,14}\b"), r"\1-ID"),
    (re.compile(r"\bA[A-Z]{3}[A-Z0-9]{16,17}\b"), "KEY"),
    (re.compile(r"(:secret:[\w/+=.@-]+)-\w{6}\b"), r"\1-ID"),
    (re.compile(r"-[A-Za-z0-9]{12,13}\b(?=$|[/\":,])"), "-ID"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+[\d:]+)"), "TIME"),
)
NEW_EACH_TIME = (
    "ResponseMetadata",
    "RevisionId",
    "CreatedTimestamp",
    "LastModifiedTimestamp",
    "LastModified",
    "creationTime",
    "StateReason",
    "StateReasonData",
    "ETag",
)
BUCKET = {
    "get_bucket_versioning": "Status",
    "get_bucket_encryption": "ServerSideEncryptionConfiguration",
    "get_public_access_block": "PublicAccessBlockConfiguration",
    "get_bucket_policy": "Policy",
    "get_bucket_lifecycle_configuration": "Rules",
    "get_bucket_tagging": "TagSet",
    "get_bucket_cors": "CORSRules",
    "get_bucket_ownership_controls": "OwnershipControls",
}


def everything(of: Clients, root: Path, repository: str) -> State:
    """Return it by service, kind and name."""
    found: State = {}
    for service in (
        _stacks, _storage, _identities, _secrets, _functions, _events, _catalog, _sagemaker,
        _scaling,
    ):  # fmt: skip
        for kind, name, properties in service(of):
            where = found.setdefault(kind, {})
            name = plain(name)
            # Two whose names differ by what is random only.
            while name in where:
                name += " again"
            where[name] = plain(properties)
    found["GitHub"] = plain(_github(of))
    found["clone"] = plain(_clone(root))
    return found


def differences(one: Any, other: Any, where: str = "") -> Iterator[str]:
    """Tell how two states differ, in a line each."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            if key not in one or key not in other:
                yield f"{where}/{key} is in {'the second' if key in other else 'the first'} only"
            else:
                yield from differences(one[key], other[key], f"{where}/{key}")
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"


def plain(value: Any) -> Any:
    """Return it as JSON has it, without what is new each time."""
    if isinstance(value, dict):
        rows = {plain(key): item for key, item in value.items() if key not in NEW_EACH_TIME}
        return {key: plain(item) for key, item in rows.items()}
    if isinstance(value, list | tuple | set):
        return sorted((plain(item) for item in value), key=repr)
    if isinstance(value, datetime):
        return "TIME"
    if isinstance(value, str):
        for pattern, word in IDENTIFIERS:
            value = pattern.sub(word, value)
        return value
    return value if isinstance(value, bool | int | float) or value is None else repr(value)


def maybe(call: Callable[..., Any], key: str = "", **request: Any) -> Any:
    """Return the answer, or the part under a key; None if it is missing."""
    with contextlib.suppress(ClientError):
        answer = call(**request)
        return answer.get(key) if key else answer
    return None


def pages(client: Any, operation: str, key: str, **request: Any) -> Iterator[Any]:
    """Return the rows of all pages."""
    if not client.can_paginate(operation):
        yield from getattr(client, operation)(**request).get(key, ())
        return
    for page in client.get_paginator(operation).paginate(**request):
        yield from page.get(key, ())


Found = Iterator[tuple[str, str, Any]]


def _stacks(of: Client) -> Found:
    client = of("cloudformation")
    for stack in pages(client, "describe_stacks", "Stacks"):
        name = stack["StackName"]
        kept = ("StackStatus", "Parameters", "Tags", "Outputs", "EnableTerminationProtection")
        rows = pages(client, "list_stack_resources", "StackResourceSummaries", StackName=name)
        # The executed one has nothing more to say; others wait for someone.
        sets = [
            row
            for row in client.list_change_sets(StackName=name)["Summaries"]
            if row["ExecutionStatus"] != "EXECUTE_COMPLETE"
        ]
        yield (
            "stacks",
            name,
            {key: stack.get(key) for key in kept}
            | {
                "resources": [
                    [row["LogicalResourceId"], row["ResourceType"], row["ResourceStatus"]]
                    for row in rows
                    if row["ResourceStatus"] != "DELETE_COMPLETE"
                ],
                "change sets": [row["Status"] for row in sets],
            },
        )


def _storage(of: Client) -> Found:
    client = of("s3")
    for bucket in client.list_buckets()["Buckets"]:
        name = bucket["Name"]
        settings = {
            operation: maybe(getattr(client, operation), key, Bucket=name)
            for operation, key in BUCKET.items()
        }
        objects = {
            item["Key"]: [
                item["Size"],
                client.get_object_tagging(Bucket=name, Key=item["Key"])["TagSet"],
            ]
            for item in pages(client, "list_objects_v2", "Contents", Bucket=name)
        }
        yield "buckets", name, settings | {"objects": objects}


def _identities(of: Client) -> Found:
    client = of("iam")
    for role in pages(client, "list_roles", "Roles"):
        name = role["RoleName"]
        shown = client.get_role(RoleName=name)["Role"]
        kept = ("Path", "AssumeRolePolicyDocument", "MaxSessionDuration", "PermissionsBoundary")
        yield (
            "roles",
            name,
            {key: shown.get(key) for key in (*kept, "Tags")}
            | {
                "policies": {
                    policy: client.get_role_policy(RoleName=name, PolicyName=policy)[
                        "PolicyDocument"
                    ]
                    for policy in pages(client, "list_role_policies", "PolicyNames", RoleName=name)
                },
                "attached": list(
                    pages(client, "list_attached_role_policies", "AttachedPolicies", RoleName=name)
                ),
            },
        )
    for user in pages(client, "list_users", "Users"):
        name = user["UserName"]
        rows = pages(client, "list_access_keys", "AccessKeyMetadata", UserName=name)
        yield (
            "users",
            name,
            {
                "keys": [row["Status"] for row in rows],
                "policies": {
                    policy: client.get_user_policy(UserName=name, PolicyName=policy)[
                        "PolicyDocument"
                    ]
                    for policy in pages(client, "list_user_policies", "PolicyNames", UserName=name)
                },
                "tags": client.list_user_tags(UserName=name)["Tags"],
            },
        )
    for policy in pages(client, "list_policies", "Policies", Scope="Local"):
        arn = policy["Arn"]
        shown = client.get_policy_version(PolicyArn=arn, VersionId=policy["DefaultVersionId"])
        yield "policies", policy["PolicyName"], shown["PolicyVersion"]["Document"]
    listed = client.list_open_id_connect_providers()["OpenIDConnectProviderList"]
    for provider in listed:
        arn = provider["Arn"]
        yield "providers", arn, client.get_open_id_connect_provider(OpenIDConnectProviderArn=arn)


def _secrets(of: Client) -> Found:
    client = of("secretsmanager")
    for secret in pages(client, "list_secrets", "SecretList", IncludePlannedDeletion=True):
        name = secret["Name"]
        value = maybe(client.get_secret_value, "SecretString", SecretId=name)
        shown = client.describe_secret(SecretId=name)
        yield (
            "secrets",
            name,
            {
                "description": shown.get("Description"),
                "tags": shown.get("Tags"),
                "deleted": "DeletedDate" in shown,
                "policy": maybe(client.get_resource_policy, "ResourcePolicy", SecretId=name),
                # The key differs each time; whether GitHub has the same one is checked there.
                "value": _shape(value),
            },
        )


def _shape(value: str | None) -> Any:
    if value is None:
        return None
    content = json.loads(value)
    return sorted(content) if isinstance(content, dict) else len(value)


def _statements(policy: str | None) -> list[str]:
    """Return a function's permissions, which CloudFormation gives in any order."""
    return sorted(map(json.dumps, json.loads(policy or '{"Statement": []}')["Statement"]))


def _functions(of: Client) -> Found:
    client = of("lambda")
    for function in pages(client, "list_functions", "Functions"):
        name = function["FunctionName"]
        yield (
            "functions",
            name,
            {
                "configuration": client.get_function_configuration(FunctionName=name),
                "policy": _statements(maybe(client.get_policy, "Policy", FunctionName=name)),
                "asynchronous": maybe(client.get_function_event_invoke_config, FunctionName=name),
                "tags": maybe(client.list_tags, "Tags", Resource=function["FunctionArn"]),
            },
        )
    for layer in pages(client, "list_layers", "Layers"):
        yield "layers", layer["LayerName"], layer["LatestMatchingVersion"]["Version"]
    logs = of("logs")
    for group in pages(logs, "describe_log_groups", "logGroups"):
        if not group["logGroupName"].startswith("/aws/sagemaker/"):
            yield "log groups", group["logGroupName"], group.get("retentionInDays")


def _events(of: Client) -> Found:
    client = of("events")
    for rule in client.list_rules()["Rules"]:
        name = rule["Name"]
        yield "rules", name, [rule, client.list_targets_by_rule(Rule=name)["Targets"]]
    for alarm in pages(of("cloudwatch"), "describe_alarms", "MetricAlarms"):
        yield "alarms", alarm["AlarmName"], {**alarm, "StateValue": ""}
    queues = of("sqs")
    for url in queues.list_queues().get("QueueUrls", ()):
        answer = queues.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        yield "queues", url, answer["Attributes"]
    for topic in pages(of("sns"), "list_topics", "Topics"):
        yield "topics", topic["TopicArn"], None


def _catalog(of: Client) -> Found:
    client = of("servicecatalog")
    for portfolio in client.list_portfolios()["PortfolioDetails"]:
        key = {"PortfolioId": portfolio["Id"]}
        yield (
            "portfolios",
            portfolio["DisplayName"],
            [
                portfolio,
                client.list_principals_for_portfolio(**key)["Principals"],
                client.list_constraints_for_portfolio(**key)["ConstraintDetails"],
            ],
        )
    for product in client.search_products_as_admin()["ProductViewDetails"]:
        summary = product["ProductViewSummary"]
        made = client.list_provisioning_artifacts(ProductId=summary["ProductId"])
        shown = client.describe_product_as_admin(Id=summary["ProductId"])
        rows = [
            {key: row.get(key) for key in ("Name", "Guidance", "Active", "Type", "Description")}
            for row in made["ProvisioningArtifactDetails"]
        ]
        yield "products", summary["Name"], [summary, rows, shown.get("Tags")]
    rows = client.search_provisioned_products(
        AccessLevelFilter={"Key": "Account", "Value": "self"}
    )["ProvisionedProducts"]
    for row in rows:
        kept = ("Name", "Status", "Type", "Tags", "UserArn")
        yield "provisioned", row["Name"], {key: row.get(key) for key in kept}
    for item in of("codeconnections").list_connections()["Connections"]:
        yield "connections", item["ConnectionName"], item


def _sagemaker(of: Client) -> Found:
    client = of("sagemaker")
    for group in pages(client, "list_model_package_groups", "ModelPackageGroupSummaryList"):
        name = group["ModelPackageGroupName"]
        arn = group["ModelPackageGroupArn"]
        policy = maybe(
            client.get_model_package_group_policy, "ResourcePolicy", ModelPackageGroupName=name
        )
        versions = pages(
            client, "list_model_packages", "ModelPackageSummaryList", ModelPackageGroupName=name
        )
        approvals = [row["ModelApprovalStatus"] for row in versions]
        tags = client.list_tags(ResourceArn=arn)["Tags"]
        yield "groups", name, {"policy": policy, "tags": tags, "versions": approvals}
    for operation, key, name in (
        ("list_code_repositories", "CodeRepositorySummaryList", "CodeRepositoryName"),
        ("list_models", "Models", "ModelName"),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName"),
        ("list_pipelines", "PipelineSummaries", "PipelineName"),
    ):
        for row in pages(client, operation, key):
            yield key, row[name], row
    for row in pages(client, "list_endpoints", "Endpoints"):
        shown = client.describe_endpoint(EndpointName=row["EndpointName"])
        kept = ("EndpointStatus", "EndpointConfigName", "ProductionVariants")
        yield "endpoints", row["EndpointName"], {key: shown.get(key) for key in kept}
    for row in client.list_projects()["ProjectSummaryList"]:
        shown = client.describe_project(ProjectName=row["ProjectName"])
        # Its name can be had again.
        if shown["ProjectStatus"] != "DeleteCompleted":
            yield "projects", row["ProjectName"], shown


def _scaling(of: Client) -> Found:
    client = of("application-autoscaling")
    for operation, key in (
        ("describe_scalable_targets", "ScalableTargets"),
        ("describe_scaling_policies", "ScalingPolicies"),
    ):
        for row in getattr(client, operation)(ServiceNamespace="sagemaker")[key]:
            yield key, row["ResourceId"], row


def _github(of: Clients) -> State:
    assert of.server is not None
    github, keys = of.server.github, of("secretsmanager")
    found: State = {}
    for name, record in github.store.all("GitHubRepository").items():
        places = {"": record, **record["_environments"]}
        same: State = {}
        for place, holder in places.items():
            [kept, *_] = [
                maybe(
                    keys.get_secret_value,
                    "SecretString",
                    SecretId=access.secret_in(name.partition("/")[2]),
                )
                for access in projects.ACCESSES
                if access.environment == place
            ] or [None]
            content = json.loads(kept) if kept else {}
            for secret in holder.get("_secrets", ()):
                value = github.routes.secret(record["full_name"], secret, place)
                same[f"{place} {secret}"] = value == content.get(secret.lower())
        found[name] = {
            "private": record["private"],
            "variables": {key: item["value"] for key, item in record["_variables"].items()},
            "secrets": same,
            "environments": {
                key: [
                    item["_reviewers"],
                    item["_bypass"],
                    item["_policy"],
                    [policy["name"] for policy in item["_policies"]],
                    {key: each["value"] for key, each in item.get("_variables", {}).items()},
                ]
                for key, item in record["_environments"].items()
            },
            "branches": list(github.bare.branches(record["full_name"])),
            "runs": len(github.routes.runs_of(record["full_name"])),
        }
    return found


def _clone(root: Path) -> State:
    def git(*words: str) -> list[str]:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
        return done.stdout.splitlines()

    return {
        "settings": [row for row in git("config", "--local", "--list") if "core." not in row],
        "references": git("for-each-ref", "--format=%(refname)", "refs/heads"),
        "changes": git("status", "--porcelain"),
    }
