"""The target that a request sets for a stack, and all that CloudFormation refuses before it starts.

Changes nothing. The target consists of members of the stack's record, which the engine reads.
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
from sm_mlops.sandbox.wire import ApiError, Caller, Params, not_implemented

Client = Callable[[str], Any]
NAMED = {
    "AWS::IAM::ManagedPolicy": "ManagedPolicyName",
    "AWS::IAM::Role": "RoleName",
    "AWS::IAM::User": "UserName",
}
IAM = (*NAMED, "AWS::IAM::AccessKey")


def aim(
    params: Params,
    caller: Caller,
    stack: Record,
    previous: Record | None,
    ledger: Ledger,
    client: Client,
) -> Record:
    """Return the target that a request sets for a stack, in members of the stack's record.

    Raises ApiError for all that CloudFormation refuses before it starts.
    """
    if params.get("UsePreviousTemplate"):
        if previous is None:
            raise invalid("UsePreviousTemplate is not allowed for a new stack")
        body = previous["_template"]
    else:
        body = body_of(params, client)
    if "{{resolve:" in body:
        raise not_implemented("dynamic references ({{resolve:...}})", "ValidationError")
    parsed = template.parse(body)
    check_types(parsed)
    _check_capabilities(parsed, params.get("Capabilities", []))
    _check_attributes(parsed)
    if previous is not None:
        _check_same_types(parsed, previous)
    values = parameters.bind(
        parsed, params.get("Parameters", []), previous["_values"] if previous else None
    )
    target: Record = {
        "Capabilities": params.get("Capabilities", []),
        "Description": parsed.description,
        "Parameters": _parameters_shown(parsed, values),
        "Tags": params.get("Tags", previous["Tags"] if previous else []),
        "_template": body,
        "_values": values,
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
        raise not_implemented(f"these resource types: {_names(absent)}", "ValidationError")


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


def _check_capabilities(parsed: Template, given: list[str]) -> None:
    if not any(kind in IAM for kind in parsed.types()):
        return
    named = any(
        NAMED.get(resource["Type"], "") in (resource.get("Properties") or {})
        for resource in parsed.resources.values()
    )
    needed = "CAPABILITY_NAMED_IAM" if named else "CAPABILITY_IAM"
    if not {needed, "CAPABILITY_NAMED_IAM"} & set(given):
        raise ApiError("InsufficientCapabilitiesException", f"Requires capabilities : [{needed}]")


def _parameters_shown(parsed: Template, values: dict[str, str]) -> list[Params]:
    rows = []
    for name, text in values.items():
        hidden = str(parsed.parameters[name].get("NoEcho", "")).lower() == "true"
        shown = parameters.HIDDEN if hidden else text
        rows.append({"ParameterKey": name, "ParameterValue": shown})
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
