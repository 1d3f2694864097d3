"""What a request asks a stack to become, and all that CloudFormation refuses before it starts.

Changes nothing. The answer is in members of the stack's record, which the engine then works from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote, urlparse

from botocore.exceptions import ClientError

from sm_mlops.sandbox.cloudformation import parameters, schemas, template
from sm_mlops.sandbox.cloudformation.engine import scope_of
from sm_mlops.sandbox.cloudformation.ledger import Ledger
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.cloudformation.template import LONGEST_BODY, LONGEST_OBJECT, Template, invalid
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, Caller, Params

Client = Callable[[str], Any]
NAMED = {
    "AWS::IAM::Group": "GroupName",
    "AWS::IAM::InstanceProfile": "InstanceProfileName",
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
}
IAM = (*NAMED, "AWS::IAM::AccessKey", "AWS::IAM::Policy", "AWS::IAM::UserToGroupAddition")


def aim(
    params: Params,
    caller: Caller,
    stack: Record,
    previous: Record | None,
    ledger: Ledger,
    client: Client,
) -> Record:
    """Return what a request asks a stack to become, in members of the stack's record.

    Raises ApiError for all that CloudFormation refuses before it starts.
    """
    if params.get("RollbackConfiguration", {}).get("RollbackTriggers"):
        raise invalid("The sandbox watches no rollback triggers of stacks")
    for name in ("StackPolicyURL", "StackPolicyDuringUpdateBody", "StackPolicyDuringUpdateURL"):
        if name in params:
            raise invalid(f"The sandbox does not know {name}")
    if params.get("UsePreviousTemplate"):
        if previous is None:
            raise invalid("UsePreviousTemplate is not allowed for a new stack")
        body = previous["_template"]
    else:
        body = body_of(params, client)
    parsed = template.parse(body)
    check_types(parsed)
    _check_capabilities(parsed, params.get("Capabilities", []))
    _check_attributes(parsed)
    if previous is not None:
        _check_same_types(parsed, previous)
    values, resolved = parameters.bind(
        parsed,
        params.get("Parameters", []),
        previous["_values"] if previous else None,
        lambda name: _ssm(name, client),
    )
    target: Record = {
        "Capabilities": params.get("Capabilities", []),
        "Description": parsed.description,
        "NotificationARNs": params.get(
            "NotificationARNs", previous["NotificationARNs"] if previous else []
        ),
        "Parameters": _parameters_shown(parsed, values, resolved),
        "Tags": params.get("Tags", previous["Tags"] if previous else []),
        "_template": body,
        "_values": values,
        "_resolved": resolved,
    }
    if params.get("RoleARN"):
        _check_role(params["RoleARN"], client)
        target["RoleARN"] = params["RoleARN"]
    scope = scope_of(ledger, {**stack, **target})
    scope.check_rules()
    if not scope.active():
        raise invalid("Template format error: At least one Resources member must be defined.")
    return target


def body_of(params: Params, client: Client) -> str:
    """Return the text of the template that a request gives or points to."""
    body = params.get("TemplateBody")
    if body is not None and params.get("TemplateURL"):
        raise invalid("Specify either TemplateBody or TemplateURL, not both")
    if body is not None:
        if len(body.encode()) > LONGEST_BODY:
            raise invalid(
                "1 validation error detected: Value at 'templateBody' failed to satisfy "
                f"constraint: Member must have length less than or equal to {LONGEST_BODY}"
            )
        return str(body)
    if not params.get("TemplateURL"):
        raise invalid("Either Template URL or Template Body must be specified.")
    bucket, key = _s3_place(params["TemplateURL"])
    try:
        answer = client("s3").get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        message = error.response["Error"].get("Message", "")
        code = error.response["Error"]["Code"]
        raise invalid(f"S3 error: {message}: {code}") from error
    content = answer["Body"].read()
    if len(content) > LONGEST_OBJECT:
        raise invalid(f"Template may not exceed {LONGEST_OBJECT} bytes in size.")
    return str(content.decode())


def _ssm(name: str, client: Client) -> str:
    try:
        return str(client("ssm").get_parameter(Name=name)["Parameter"]["Value"])
    except ClientError as error:
        raise invalid(
            f"Unable to fetch parameters [{name}] from parameter store for this account."
        ) from error


def _check_role(arn: str, client: Client) -> None:
    try:
        client("iam").get_role(RoleName=arn.rpartition("/")[2])
    except ClientError as error:
        raise invalid(f"Role {arn} is invalid or cannot be assumed") from error


def check_types(parsed: Template) -> None:
    """Refuse resource types that AWS does not have, and those that the sandbox cannot make."""
    unknown = [kind for kind in parsed.types() if not schemas.exists(kind)]
    if unknown:
        raise invalid(f"Template format error: Unrecognized resource types: {_names(unknown)}")
    absent = [kind for kind in parsed.types() if kind not in PROVIDERS]
    if absent:
        raise invalid(
            f"The sandbox cannot make resources of these types: {_names(absent)}; "
            f"it can make {', '.join(sorted(PROVIDERS))}"
        )


def _check_attributes(parsed: Template) -> None:
    for section in (parsed.resources, parsed.outputs):
        for reference in parsed.references(list(section.values())):
            if reference.attribute is None or reference.name not in parsed.resources:
                continue
            kind = parsed.resources[reference.name]["Type"]
            if reference.attribute not in PROVIDERS[kind].attributes:
                raise invalid(
                    f"Template error: resource {reference.name} does not support attribute type "
                    f"{reference.attribute} in Fn::GetAtt"
                )


def _check_same_types(parsed: Template, previous: Record) -> None:
    changed = [
        name
        for name, record in previous["_resources"].items()
        if name in parsed.resources and parsed.resources[name]["Type"] != record["ResourceType"]
    ]
    if changed:
        raise invalid(
            "Update of resource type is not permitted. The new template modifies resource type of "
            f"the following resources: {_names(changed)}"
        )


def _capabilities(parsed: Template) -> tuple[str, list[str]] | None:
    """Return the capability that a template needs and the types that need it."""
    kinds = [kind for kind in parsed.types() if kind in IAM]
    if not kinds:
        return None
    named = any(
        NAMED.get(resource["Type"], "") in (resource.get("Properties") or {})
        for resource in parsed.resources.values()
    )
    return "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM", kinds


def _check_capabilities(parsed: Template, given: list[str]) -> None:
    needed = _capabilities(parsed)
    if needed is None:
        return
    enough = {needed[0], "CAPABILITY_NAMED_IAM"}
    if not enough & set(given):
        raise ApiError(
            "InsufficientCapabilitiesException", f"Requires capabilities : [{needed[0]}]"
        )


def capabilities_shown(parsed: Template) -> Params:
    """Return what GetTemplateSummary says of the capabilities that a template needs."""
    needed = _capabilities(parsed)
    if needed is None:
        return {}
    reason = f"The following resource(s) require capabilities: {_names(needed[1])}"
    return {"Capabilities": [needed[0]], "CapabilitiesReason": reason}


def _parameters_shown(
    parsed: Template, values: dict[str, str], resolved: dict[str, str]
) -> list[Params]:
    rows = []
    for name, text in values.items():
        hidden = str(parsed.parameters[name].get("NoEcho", "")).lower() == "true"
        row = {
            "ParameterKey": name,
            "ParameterValue": parameters.HIDDEN if hidden else text,
        }
        if name in resolved:
            row["ResolvedValue"] = resolved[name]
        rows.append(row)
    return rows


def _s3_place(url: str) -> tuple[str, str]:
    """Return bucket and key of https://<bucket>.s3.<region>.amazonaws.com/<key> or
    https://s3.<region>.amazonaws.com/<bucket>/<key>; the sandbox's own address is of that form."""
    parsed = urlparse(url)
    path = unquote(parsed.path.lstrip("/"))
    host = parsed.hostname or ""
    bucket, separator, _ = host.partition(".s3")
    if separator:
        return bucket, path
    bucket, _, key = path.partition("/")
    if not key or not (host.startswith("s3") or host in ("127.0.0.1", "localhost")):
        raise invalid("TemplateURL must be a supported URL.")
    return bucket, key


def _names(names: list[str]) -> str:
    return f"[{', '.join(names)}]"
