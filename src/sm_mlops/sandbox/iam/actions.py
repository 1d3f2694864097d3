"""The permissions that a request needs: actions on resources, passing a role, tagging.

S3, whose operations depend on paths and queries, has its own module: objects.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.sandbox.iam.operations import SERVICES, Service, Table
from sm_mlops.sandbox.policy_language import Value, many
from sm_mlops.sandbox.wire import Params

FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Check:
    """One action on one resource that a request needs, with the context keys it brings along."""

    action: str
    resource: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    shown: str = ""
    """How the service names the resource in a denial, where it is not by its ARN."""


@dataclass(frozen=True)
class Place:
    """The partition, region and account of a request, and how to look up ARNs by name."""

    partition: str
    region: str
    account: str
    look: Callable[[str, str], str | None] = lambda kind, name: None
    """Returns the ARN of what exists, by kind and name."""

    def arn(self, service: str, resource: str) -> str:
        """Return an ARN, without a region for global services and dashboards."""
        everywhere = service in ("iam", "sts") or resource.startswith("dashboard/")
        region = "" if everywhere else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"


def _by_operation(table: Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource, operations in table.items():
        for operation in operations.split():
            found.setdefault(operation, []).append(resource)
    return found


_RESOURCES = {name: _by_operation(service.table) for name, service in SERVICES.items()}


def checks(service: str, operation: str, params: Params, place: Place) -> list[Check] | None:
    """Return what a request needs to be allowed, None for an unknown operation."""
    about = SERVICES.get(service)
    templates = _RESOURCES.get(service, {}).get(operation)
    if about is None or templates is None:
        return None
    action = f"{about.prefix}:{about.renamed.get(operation, operation)}"
    facts = {**request_tags(params), **_special(service, operation, params, place)}
    found = []
    for template in _templates(operation, params, templates):
        if template:
            for resource, shown in _resources(about, template, operation, params, place):
                found.append(Check(action, resource, facts, shown))
    return [*found, *_tagging(about, service, operation, params, found), *_more(
        about, service, operation, params, place
    )]  # fmt: skip


def _templates(operation: str, params: Params, templates: list[str]) -> list[str]:
    # The resource of a few operations depends on their members.
    if operation == "ListModelPackages" and "ModelPackageGroupName" not in params:
        return ["*"]
    if operation == "DescribeStacks" and not params.get("StackName"):
        return ["*"]
    return templates


def _resources(
    about: Service, template: str, operation: str, params: Params, place: Place
) -> Iterator[tuple[str, str]]:
    """Yield ARNs, and how the service shows them; several where a member names several."""
    if template == "*":
        yield "*", ""
        return
    namespace = about.namespace or about.prefix
    kind, lookup, name = template.partition("=")
    if lookup:
        member = FIELD.fullmatch(name)
        assert member is not None
        yield _looked_up(kind, operation, params, member[1], place)
        return
    listed = next((f for f in FIELD.findall(template) if isinstance(params.get(f), list)), None)
    if listed is not None and not params[listed]:
        listed = None
    for one in params[listed] if listed else [None]:
        values = {**params, **({listed: one} if listed else {})}
        yield _filled(namespace, template, values, place), ""


def _filled(namespace: str, template: str, values: Params, place: Place) -> str:
    whole = FIELD.search(template)
    if whole is not None and str(values.get(whole[1], "")).startswith("arn:"):
        # An ARN is accepted in place of a name.
        return str(values[whole[1]])

    def value(found: re.Match[str]) -> str:
        given = values.get(found[1])
        if found[1] == "Path" and namespace == "iam":
            return str(given or "/")
        text = "*" if given is None else str(given)
        if found[1] == "Url":
            text = text.removeprefix("https://")
        return text

    return place.arn(namespace, FIELD.sub(value, template))


def _looked_up(
    kind: str, operation: str, params: Params, member: str, place: Place
) -> tuple[str, str]:
    """Return the ARN of a resource whose name is not enough for it, and how it is shown."""
    given = params.get(member)
    name = "*" if given is None else str(given)
    if kind in ("role", "user"):
        if operation in ("CreateRole", "CreateUser"):
            return place.arn("iam", f"{kind}{params.get('Path') or '/'}{name}"), ""
        # A role that does not exist has no path.
        arn = place.look(kind, name) or place.arn("iam", f"{kind}/{name}")
        return arn, f"{kind} {name}"
    if kind == "changeset" and "StackName" in params:
        kind, name = "stack", str(params["StackName"])
    if kind == "stack":
        if name.startswith("arn:"):
            return name, ""
        found = None if operation == "CreateStack" else place.look("stack", name)
        return found or place.arn("cloudformation", f"stack/{name}/*"), ""
    if kind == "queue":
        return place.arn("sqs", name.rpartition("/")[2]), ""
    if name.startswith("arn:"):
        return (name if kind != "secret" else place.look(kind, name) or name), ""
    found = place.look(kind, name)
    if found:
        return found, ""
    if kind == "secret":
        return place.arn("secretsmanager", f"secret:{name}"), ""
    if name.startswith("alias/"):
        return place.arn("kms", name), ""
    return place.arn("kms", f"key/{name}"), ""


# Context keys.


def tags_given(params: Params) -> dict[str, str]:
    """Return the tags of a request, in whatever form the service takes them."""
    given = next((params[n] for n in ("Tags", "tags", "TagList") if params.get(n)), None)
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    found = {}
    for tag in given if isinstance(given, list) else ():
        if isinstance(tag, Mapping):
            key = next((tag[n] for n in ("Key", "key", "TagKey") if n in tag), None)
            value = next((tag[n] for n in ("Value", "value", "TagValue") if n in tag), "")
            if key is not None:
                found[str(key)] = str(value)
    return found


def request_tags(params: Params) -> dict[str, Value]:
    """Return the context keys of the tags, and of the keys of tags, in a request."""
    tags = tags_given(params)
    keys = list(tags)
    for name in ("TagKeys", "tagKeys"):
        keys += [str(key) for key in many(params.get(name))]
    facts: dict[str, Value] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if keys:
        facts["aws:TagKeys"] = tuple(keys)
    return facts


# Context keys that services have of their own, with the members of requests that they come from.
_OWN_KEYS = {
    "application-autoscaling": {
        "application-autoscaling:scalable-dimension": "ScalableDimension",
        "application-autoscaling:service-namespace": "ServiceNamespace",
    },
    "iam": {"iam:AWSServiceName": "AWSServiceName", "iam:PolicyARN": "PolicyArn"},
    "monitoring": {"cloudwatch:namespace": "Namespace"},
    "sagemaker": {"sagemaker:ModelApprovalStatus": "ModelApprovalStatus"},
    "sns": {"sns:Endpoint": "Endpoint", "sns:Protocol": "Protocol"},
}
_BOUNDING = (
    *("CreateRole", "CreateUser"),
    *("PutRolePermissionsBoundary", "PutUserPermissionsBoundary"),
)


def _special(service: str, operation: str, params: Params, place: Place) -> dict[str, Value]:
    """Return the context keys that a service has of its own; see policy_language.KEYS."""
    found: dict[str, Value] = {
        key: str(params[member])
        for key, member in _OWN_KEYS.get(service, {}).items()
        if params.get(member) is not None
    }
    if operation in _BOUNDING:
        found["iam:PermissionsBoundary"] = params.get("PermissionsBoundary")
    if operation == "CreateTransformJob":
        found["sagemaker:ModelArn"] = place.arn("sagemaker", f"model/{params.get('ModelName')}")
    return found


# What a request needs besides its own action.


_CREATING = {
    "cloudformation": "cloudformation:CreateAction",
    "sagemaker": "sagemaker:TaggingAction",
}


def _tagging(
    about: Service, service: str, operation: str, params: Params, own: list[Check]
) -> Iterator[Check]:
    """Yield the permissions for tagging a new resource."""
    given = tags_given(params)
    if not (about.tagging and given) or "Tag" in operation:
        return
    facts = dict(request_tags(params))
    if service in _CREATING:
        facts[_CREATING[service]] = operation
    action = about.tagging.format(operation.removeprefix("Create"))
    for check in own:
        # CreateEndpoint uses a configuration and tags the endpoint.
        used = operation == "CreateEndpoint" and ":endpoint-config/" in check.resource
        if check.resource != "*" and not used:
            yield Check(action, check.resource, facts)


def _more(
    about: Service, service: str, operation: str, params: Params, place: Place
) -> Iterator[Check]:
    role: Any = params if operation in about.passes else None
    for member in about.passes.get(operation, "").split("."):
        role = role.get(member) if isinstance(role, Mapping) else None
    if role:
        facts: dict[str, Value] = {"iam:PassedToService": about.to}
        yield Check("iam:PassRole", str(role), facts)
    if service == "sagemaker" and operation == "CreateModelPackage":
        yield from _version(params, place)
    if service == "sagemaker" and operation == "CreateModel":
        version = str((params.get("PrimaryContainer") or {}).get("ModelPackageName", ""))
        if version.startswith("arn:") and version.split(":")[4] != place.account:
            yield Check("sagemaker:CreateModel", version, request_tags(params))
    if service == "application-autoscaling" and params.get("ServiceNamespace") == "sagemaker":
        yield from _scaling(operation, params, place)


def _version(params: Params, place: Place) -> Iterator[Check]:
    """Yield the permissions for registering a version: its group and the group's versions."""
    action, facts = "sagemaker:CreateModelPackage", request_tags(params)
    facts |= {"sagemaker:ModelApprovalStatus": params.get("ModelApprovalStatus")}
    group = params.get("ModelPackageGroupName")
    if group:
        arn = group if str(group).startswith("arn:") else None
        arn = arn or place.arn("sagemaker", f"model-package-group/{group}")
        version = arn.replace(":model-package-group/", ":model-package/") + "/*"
        yield Check(action, arn, facts)
    else:
        version = place.arn("sagemaker", f"model-package/{params.get('ModelPackageName', '*')}")
    yield Check(action, version, facts)
    if tags_given(params):
        tagged = {**facts, "sagemaker:TaggingAction": "CreateModelPackage"}
        yield Check("sagemaker:AddTags", version, tagged)


def _scaling(operation: str, params: Params, place: Place) -> Iterator[Check]:
    """Yield the permissions on an endpoint for scaling it.

    Source:
    https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_permission_validation.html
    """
    parts = str(params.get("ResourceId", "")).split("/")
    if operation not in ("RegisterScalableTarget", "PutScalingPolicy") or len(parts) < 2:
        return
    endpoint = place.arn("sagemaker", f"endpoint/{parts[1]}")
    if operation == "RegisterScalableTarget":
        yield Check("sagemaker:DescribeEndpoint", endpoint)
        yield Check("sagemaker:UpdateEndpointWeightsAndCapacities", endpoint)
        return
    if params.get("PolicyType") == "TargetTrackingScaling":
        alarm = place.arn("cloudwatch", f"alarm:TargetTracking-{'/'.join(parts[:2])}/*")
        yield Check("cloudwatch:PutMetricAlarm", alarm)
