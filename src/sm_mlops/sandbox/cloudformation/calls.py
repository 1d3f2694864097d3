"""Shared by all resource types: calls, failures, names, arguments and tags.

Knows AWS's services through boto3 only; the engine decides when a call is made.
"""

from __future__ import annotations

import json
import secrets
import string
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import ClientError

from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.template import Json
from sm_mlops.sandbox.wire import partition
from sm_mlops.sandbox.wire import pick as pick

POLL_SECONDS = 0.05
ALPHABET = string.ascii_letters + string.digits
MISSING = (
    "NoSuchEntity",
    "NoSuchBucket",
    "NoSuchBucketPolicy",
    "NotFound",
    "NotFoundException",
    "ObjectNotFoundException",
    "ResourceNotFound",
    "ResourceNotFoundException",
    "AWS.SimpleQueueService.NonExistentQueue",
    "QueueDoesNotExist",
)
# SageMaker says with a ValidationException that something is missing.
MISSING_WORDS = ("could not find", "does not exist", "cannot find")
EXISTING = (
    "EntityAlreadyExists",
    "BucketAlreadyExists",
    "BucketAlreadyOwnedByYou",
    "ResourceAlreadyExistsException",
    "AlreadyExistsException",
    "QueueAlreadyExists",
    "ResourceConflictException",
    "ResourceExistsException",
    "ResourceInUse",
)
T = TypeVar("T")


class ResourceFailed(Exception):
    """Why a resource could not be made, changed or deleted: its ResourceStatusReason."""


class Cancelled(Exception):
    """Another resource has failed, or the user has cancelled: stop waiting."""


@dataclass
class Call:
    """One resource to create, change or delete.

    `name` is the one from the template or a generated one; `properties` are complete, without tags.
    `previous` and `previous_tags` are those before an update.
    """

    client: Callable[[str], Any]
    kind: str
    name: str
    properties: Json
    tags: dict[str, str]
    account: str
    region: str
    physical: str
    previous: Json
    previous_tags: dict[str, str]
    on_made: Callable[[str], None]
    cancelled: threading.Event

    def made(self, physical: str) -> None:
        """Tell the engine the physical id, as soon as there is one."""
        self.physical = physical
        self.on_made(physical)

    def changed(self, *names: str) -> bool:
        """Tell whether one of these properties differs from before."""
        return any(self.properties.get(name) != self.previous.get(name) for name in names)

    def wait(self, look: Callable[[], T | None]) -> T:
        """Poll `look` until it returns an answer. Raises Cancelled."""
        while True:
            answer = look()
            if answer is not None:
                return answer
            if self.cancelled.wait(POLL_SECONDS):
                raise Cancelled


@dataclass(frozen=True)
class Name:
    """How a resource gets its physical name: from a property, or else generated."""

    property: str
    longest: int = 64
    style: str = "{stack}-{logical}-{random}"
    lower: bool = False

    def new(self, stack: str, logical: str) -> str:
        random = "".join(secrets.choice(ALPHABET) for _ in range(12))
        fixed = len(self.style.format(stack="", logical="", random=random))
        room = self.longest - fixed
        if "{stack}" in self.style:
            logical = logical[: max(room // 2, room - len(stack))]
            stack = stack[: room - len(logical)].rstrip("-")
        name = self.style.format(stack=stack, logical=logical[:room], random=random)
        return name.lower() if self.lower else name


@dataclass(frozen=True)
class Provider:
    """How to create, change and delete resources of one type.

    `update` is None for a type whose changes always need a new resource. `attributes` are what
    Fn::GetAtt may name. `physical` returns the physical id that a resource gets, "" where the
    service makes it up. `exists` tells whether what an import names is there; None for a type that
    the sandbox does not import. Functions raise ResourceFailed, Cancelled or botocore's errors.
    """

    create: Callable[[Call], Made]
    delete: Callable[[Call], None]
    update: Callable[[Call], Made] | None = None
    name: Name | None = None
    attributes: tuple[str, ...] = ()
    physical: Callable[[Call], str] = lambda call: call.name
    exists: Callable[[Call], bool] | None = None


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """Ignore the error that the resource to delete does not exist."""
    try:
        yield
    except ClientError as error:
        if not is_missing(error):
            raise


def deletes(
    service: str, operation: str, arguments: str | Callable[[Call], Json]
) -> Callable[[Call], None]:
    """Return a function that deletes a resource with one operation.

    `arguments` is the member that takes the physical id, or returns all members.
    """

    def delete(call: Call) -> None:
        given = {arguments: call.physical} if isinstance(arguments, str) else arguments(call)
        with absent_is_fine():
            getattr(call.client(service), operation)(**given)

    return delete


def is_missing(error: ClientError) -> bool:
    """Tell whether a service says that something does not exist."""
    code, message = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
    return code in MISSING or (
        code == "ValidationException" and any(word in message.lower() for word in MISSING_WORDS)
    )


def reason(error: Exception, kind: str) -> str:
    """Return the failure of a resource in CloudFormation's words."""
    if isinstance(error, ResourceFailed):
        return str(error)
    if not isinstance(error, ClientError):
        return handled(" ".join(str(error).split()), "InvalidRequest")
    answer = error.response
    code, meta = answer["Error"]["Code"], answer.get("ResponseMetadata", {})
    handler = "NotFound" if is_missing(error) else "InvalidRequest"
    if code in EXISTING:
        handler = "AlreadyExists"
    elif code.startswith("AccessDenied"):
        handler = "AccessDenied"
    text = (
        f"{answer['Error'].get('Message', code)} (Service: {kind.split('::')[1]}, "
        f"Status Code: {meta.get('HTTPStatusCode', 400)}, "
        f"Request ID: {meta.get('RequestId', uuid.uuid4())})"
    )
    return handled(text, handler)


def handled(message: str, code: str) -> str:
    """Return a resource handler's message in CloudFormation's words."""
    token = uuid.uuid4()
    return (
        f'Resource handler returned message: "{message}" '
        f"(RequestToken: {token}, HandlerErrorCode: {code})"
    )


def document(value: Any) -> str:
    """Return a policy document as text; templates give objects or text."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))


def pairs(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


@dataclass(frozen=True)
class Tagging:
    """How a service changes tags: its operations and the names of their arguments."""

    add: str
    remove: str
    target: str
    tags: str = "Tags"
    keys: str = "TagKeys"
    as_map: bool = False

    def apply(self, client: Any, target: Any, call: Call) -> None:
        """Change the tags of a resource from the previous ones to the new ones."""
        where = {self.target: target}
        gone = [key for key in call.previous_tags if key not in call.tags]
        new = {k: v for k, v in call.tags.items() if call.previous_tags.get(k) != v}
        if gone:
            getattr(client, self.remove)(**where, **{self.keys: gone})
        if new:
            getattr(client, self.add)(**where, **{self.tags: self.form(new)})

    def form(self, tags: dict[str, str]) -> Any:
        return tags if self.as_map else pairs(tags)


def arn(call: Call, service: str, resource: str, region: bool = True) -> str:
    place = call.region if region else ""
    return f"arn:{partition(call.region)}:{service}:{place}:{call.account}:{resource}"


def last_part(call: Call) -> str:
    """Return the name at the end of a physical id that is an ARN."""
    return call.physical.rpartition("/")[2]


def without(given: Json, *names: str) -> Json:
    return {name: value for name, value in given.items() if name not in names}


def present(**given: Any) -> Json:
    return {name: value for name, value in given.items() if value}


def texts(given: Json) -> dict[str, str]:
    """Return attributes as text, for services that take only text."""
    return {name: str(value).lower() for name, value in given.items()}


def only(call: Call, *names: str) -> None:
    """Refuse properties that are not implemented. Raises ResourceFailed."""
    refuse(call.kind, set(call.properties) - set(names))


def fixed(call: Call, *names: str) -> None:
    """Refuse changes of these properties. Raises ResourceFailed."""
    changed = sorted({name for name in names if call.changed(name)})
    if changed:
        raise ResourceFailed(f"The sandbox does not change {', '.join(changed)} of {call.kind}")


def refuse(where: str, names: set[str]) -> None:
    """Refuse members that are not implemented. Raises ResourceFailed."""
    if names:
        raise ResourceFailed(
            f"The sandbox does not apply these properties of {where}: {', '.join(sorted(names))}"
        )


def api(
    service: str,
    create: str,
    delete: str,
    made: Callable[[Call, Json], Made],
    gone: str | Callable[[Call], Json],
    *,
    name: Name | None = None,
    attributes: tuple[str, ...] = (),
    tagging: Tagging | None = None,
    again: bool = False,
    physical: Callable[[Call], str] = lambda call: call.name,
) -> Provider:
    """Return the provider of a type whose properties are the arguments of one operation.

    `made` reads Ref and attributes from the operation's answer, `gone` are the arguments of the
    delete operation; see `deletes`. `again`: the operation also changes what exists. Otherwise only
    tags can change, of the ARN or name that Ref returns.
    """

    def arguments(call: Call) -> Json:
        given = dict(call.properties)
        if name is not None:
            given[name.property] = call.name
        return given

    def create_one(call: Call) -> Made:
        given = arguments(call)
        if tagging is not None and call.tags:
            given[tagging.tags] = tagging.form(call.tags)
        answer = getattr(call.client(service), create)(**given)
        result = made(call, answer)
        call.made(result.ref)
        return result

    def update_one(call: Call) -> Made:
        client = call.client(service)
        if not again:
            fixed(call, *call.properties, *call.previous)
        answer = getattr(client, create)(**arguments(call)) if again else {}
        result = made(call, answer)
        if tagging is not None:
            tagging.apply(client, result.attributes.get("Arn", call.physical), call)
        return result

    return Provider(
        create_one, deletes(service, delete, gone), update_one, name, attributes, physical
    )
