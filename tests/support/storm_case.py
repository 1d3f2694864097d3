"""The trigger's environment while services fail, with a clock that moves only when someone waits.

A registry whose versions come and change, Lambda's retries and dead letters, the bucket with the
claims, and a GitHub that does what a script says. What must never happen is written down as it
happens. The function itself and urllib with all below it, down to the socket, are the real ones.
"""

from __future__ import annotations

import base64
import io
import itertools
import json
import math
import re
import socket
import traceback
import urllib.parse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ReadTimeoutError

import github_description

REGION, ACCOUNT = "eu-west-1", "123456789012"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN, INSTALLED, JENKINS = "ghp_canary0123456789", "ghs_canary9876543210", "11canary5432"
KEY, SIGNED = "canarykey0123456789", "eyJ.canary0123456789.signed"
# Of platform.yml, and of https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html
SECONDS, TRIES, OLDEST = 30, 3, 21_600
RETRY_AFTER = (60, 120)
VERSION = re.compile(
    rf"arn:aws:sagemaker:{REGION}:(?P<account>[0-9]{{12}}):model-package/"
    r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}/[1-9][0-9]{0,8}"
)


@dataclass(frozen=True)
class Project:
    """Where the versions of a group come from; `deployable` as the function has to see it."""

    repository: str
    commit: str = COMMIT
    ci: str = "github-actions"
    deployable: bool = True
    ours: bool = True


PROJECTS = {
    "churn": Project("https://github.com/acme/churn"),
    # A repository that is called like another project.
    "churn-eu": Project("https://github.com/Acme/fraud.git"),
    "fraud": Project("https://github.com/others/fraud-model", ci="jenkins"),
    "dirty": Project("https://github.com/acme/dirty", f"{COMMIT}-dirty", deployable=False),
    "stray": Project("", ours=False),
    "stranger": Project("https://github.com/strangers/churn", ours=False),
    "elsewhere": Project("https://github.com.evil.test/acme/churn", ours=False),
}


@dataclass(frozen=True)
class Weather:
    """What becomes of one request. `acts`: whether GitHub does what it is asked, whatever it says;
    `late`: how many seconds pass until it answers; the rest is for the kinds that need it."""

    kind: str = "fair"
    acts: bool = False
    status: int = 0
    retry_after: str | None = None
    text: str = ""
    late: float = 0


@dataclass
class Version:
    """A version in the registry. `approvals` are the moments at which it was approved."""

    arn: str
    group: str
    number: int
    status: str = ""
    created: float = 0
    changed: float = 0
    approvals: list[float] = field(default_factory=list)

    @property
    def project(self) -> Project:
        return PROJECTS[self.group]


@dataclass(frozen=True)
class Dispatch:
    """A deployment that GitHub has begun. `told`: whether its answer has reached the function."""

    arn: str
    approval: float
    told: bool


@dataclass
class Invocation:
    """What is known of one call of the function: the weather of its requests, and what it read."""

    script: list[Weather]
    read: Version | None = None
    status: str = ""
    approval: float = 0
    requests: int = 0
    dead: bool = False


@dataclass(frozen=True)
class Retry:
    due: float
    attempt: int
    event: Any
    accepted: float


class Killed(BaseException):
    """Lambda ends the process: nothing of the function runs any more."""


class Clock:
    """Stands in for the modules `time` and `signal`."""

    SIGALRM, ITIMER_REAL = 14, 0

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.rings, self.interval = math.inf, 0.0
        self.action: Any = None

    def time(self) -> float:
        return self.now

    monotonic = time

    def signal(self, _: int, action: Any) -> Any:
        before, self.action = self.action, action
        return before

    def setitimer(self, _: int, seconds: float, interval: float = 0) -> None:
        self.rings = self.now + seconds if seconds else math.inf
        self.interval = interval

    def sleep(self, seconds: float) -> None:
        end = self.now + seconds
        if self.rings <= end:
            self.now = max(self.now, self.rings)
            self.rings = self.now + self.interval if self.interval else math.inf
            self.action()
        self.now = max(self.now, end)


class Socket(io.RawIOBase):
    """A connection to the server that `answer` is: what it yields arrives, bytes at once, numbers
    as seconds of silence."""

    def __init__(
        self, clock: Clock, timeout: float, answer: Callable[[bytes], Iterator[bytes | float]]
    ) -> None:
        super().__init__()
        self.clock, self.timeout, self.answer = clock, timeout, answer
        self.sent = b""
        self.rest = b""
        self.steps: Iterator[bytes | float] | None = None

    def setsockopt(self, *_: Any) -> None:
        pass

    def getsockopt(self, *_: Any) -> int:
        return 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def makefile(self, *_: Any) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Nothing: http.client reads on after it."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.steps is None:
            self.steps = self.answer(self.sent)
        waited = 0.0
        while not self.rest:
            step = next(self.steps, None)
            if step is None:
                return 0
            if isinstance(step, bytes):
                self.rest = step
                continue
            waited += step
            if waited > self.timeout:
                self.clock.sleep(self.timeout)
                raise TimeoutError("timed out")
            self.clock.sleep(step)
        size = min(len(buffer), len(self.rest))
        buffer[:size], self.rest = self.rest[:size], self.rest[size:]
        return size


def refused(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Call")


class World:
    """Everything around the function. `wrong` collects what must not be."""

    def __init__(self, function: Any, secret: dict[str, Any]) -> None:
        self.function, self.secret = function, secret
        self.clock = Clock()
        self.versions: list[Version] = []
        self.deleted: set[str] = set()
        self.events: list[dict[str, Any]] = []
        self.delivered: set[str] = set()
        self.retries: list[Retry] = []
        self.letters: list[Any] = []
        self.dispatches: list[Dispatch] = []
        # Deployments asked for by hand, versions changed while approved, answers that were lies:
        # by version and approval.
        self.by_hand: list[tuple[str, float]] = []
        self.edits: list[tuple[str, float]] = []
        self.lies: list[tuple[str, float]] = []
        self.objects: dict[str, tuple[bytes, str]] = {}
        self.etags = itertools.count()
        self.log: list[str] = []
        self.wrong: list[str] = []
        self.secrets = {TOKEN, INSTALLED, JENKINS, KEY, SIGNED}
        self.invocation: Invocation | None = None
        self.last = Invocation([])
        self.dropped: list[Any] = []
        # The call to AWS that fails next time.
        self.trouble = ""
        self.unanswered: set[str] = set()

    # AWS, as the function's clients.

    def client(self, _: str) -> World:
        return self

    def describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:
        self._enter("describe_model_package")
        named = VERSION.fullmatch(ModelPackageName)
        if not named:
            raise refused("ValidationException", "Member must satisfy regular expression pattern")
        if named["account"] != ACCOUNT:
            raise refused("AccessDeniedException", "is not authorized")
        found = self.find(ModelPackageName)
        if found is None:
            raise refused("ValidationException", f"ModelPackage {ModelPackageName} does not exist.")
        self.mine.read, self.mine.status = found, found.status
        self.mine.approval = found.approvals[-1] if found.approvals else 0.0
        metadata = {"Repository": found.project.repository, "CommitId": found.project.commit}
        changed = found.changed
        return {
            "ModelPackageArn": found.arn,
            "ModelPackageGroupName": found.group,
            "ModelPackageVersion": found.number,
            "ModelApprovalStatus": found.status,
            "MetadataProperties": {name: value for name, value in metadata.items() if value},
            "CustomerMetadataProperties": {"CI": found.project.ci},
            "CreationTime": datetime.fromtimestamp(found.created, UTC),
            **({"LastModifiedTime": datetime.fromtimestamp(changed, UTC)} if changed else {}),
        }

    def get_secret_value(self, **_: str) -> dict[str, str]:
        self._enter("get_secret_value")
        return {"SecretString": json.dumps(self.secret)}

    def put_object(
        self, Key: str, Body: bytes, IfNoneMatch: str = "", IfMatch: str = "", **_: str
    ) -> None:
        claims = json.loads(Body)["state"] == "claimed"
        self._enter("put_object" if claims else "")
        held = self.objects.get(Key)
        if IfMatch and not held:
            raise refused("NoSuchKey")
        if (IfNoneMatch and held) or (held and IfMatch and held[1] != IfMatch):
            raise refused("PreconditionFailed")
        self.objects[Key] = (Body, str(next(self.etags)))

    def get_object(self, Key: str, **_: str) -> dict[str, Any]:
        self._enter("get_object")
        if Key not in self.objects:
            raise refused("NoSuchKey")
        body, etag = self.objects[Key]
        return {"Body": io.BytesIO(body), "ETag": etag}

    def delete_object(self, Key: str, **_: str) -> None:
        self._enter("delete_object")
        self.objects.pop(Key, None)

    def _enter(self, call: str) -> None:
        """Receive a call to AWS, which may fail."""
        if self.mine.dead:
            raise Killed
        if call and call == self.trouble:
            self.trouble = ""
            self.unanswered.add(call)
            self.clock.sleep(4)
            raise ReadTimeoutError(endpoint_url="https://aws.test")

    # The registry, and what it tells EventBridge.

    def find(self, arn: str) -> Version | None:
        alive = (item for item in self.versions if item.arn not in self.deleted)
        return next((item for item in alive if item.arn == arn), None)

    def register(self, group: str, status: str) -> None:
        number = 1 + sum(item.group == group for item in self.versions)
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/{group}/{number}"
        self.clock.sleep(1)
        version = Version(arn, group, number, created=self.clock.now)
        self.versions.append(version)
        self._set(version, status)

    def change(self, version: Version, status: str) -> None:
        self.clock.sleep(1)
        version.changed = self.clock.now
        self._set(version, status, UpdatedModelPackageFields=["ModelApprovalStatus"])

    def edit(self, version: Version) -> None:
        """Change something else about a version."""
        self.clock.sleep(1)
        version.changed = self.clock.now
        if version.approvals:
            self.edits.append((version.arn, version.approvals[-1]))
        self._tell(version, UpdatedModelPackageFields=["CustomerMetadataProperties"])

    def _set(self, version: Version, status: str, **more: Any) -> None:
        version.status = status
        if status == "Approved":
            version.approvals.append(self.clock.now)
        self._tell(version, **more)

    def _tell(self, version: Version, **more: Any) -> None:
        # The rule passes on nothing else.
        if version.status != "Approved":
            return
        self.events.append(
            {
                "id": str(len(self.events)),
                "source": "aws.sagemaker",
                "detail-type": "SageMaker Model Package State Change",
                "account": ACCOUNT,
                "region": REGION,
                "time": self.clock.now,
                "resources": [version.arn],
                "detail": {
                    "ModelPackageGroupName": version.group,
                    "ModelPackageVersion": version.number,
                    "ModelPackageArn": version.arn,
                    "ModelApprovalStatus": "Approved",
                    **more,
                },
            }
        )

    # Lambda.

    aws_request_id = "1"
    invoked_function_arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:sm-mlops-trigger"

    def get_remaining_time_in_millis(self) -> int:
        return SECONDS * 1000

    def deliver(self, event: Any, script: list[Weather]) -> None:
        """EventBridge hands an event to Lambda, which calls the function."""
        if isinstance(event, dict):
            self.delivered.add(str(event.get("id")))
        self._attempt(Retry(self.clock.now, 1, event, self.clock.now), script)

    def retry(self, script: list[Weather]) -> None:
        """Lambda's next attempt, whenever it is due."""
        due = min(self.retries, key=lambda item: item.due)
        self.retries.remove(due)
        self.clock.now = max(self.clock.now, due.due)
        self._attempt(due, script)

    def _attempt(self, this: Retry, script: list[Weather]) -> None:
        if self.clock.now - this.accepted > OLDEST:
            self.letters.append(this.event)
        elif self.call(this.event, script) is None:
            if this.attempt == TRIES:
                self.letters.append(this.event)
            else:
                due = self.clock.now + RETRY_AFTER[this.attempt - 1]
                self.retries.append(Retry(due, this.attempt + 1, this.event, this.accepted))

    def replay(self, version: Version, script: list[Weather]) -> dict[str, Any] | None:
        """`mlops trigger`."""
        if version.status == "Approved":
            self.by_hand.append((version.arn, version.approvals[-1]))
        detail = {"ModelPackageArn": version.arn, "Replay": True}
        return self.call({"detail": detail}, script)

    def nothing(self, event: Any) -> None:
        """Check that what is foreign or malformed does nothing, and is not retried."""
        self.trouble = ""
        told = self.call(event, [])
        if told is None or told["started"] or self.last.requests:
            self.wrong.append(f"{event!r:.300} came to {told}")

    def call(self, event: Any, script: list[Weather]) -> dict[str, Any] | None:
        """Return what one invocation answers, None if it fails."""
        outer, began, here = self.invocation, self.clock.now, len(self.log)
        alarm = self.clock.rings, self.clock.interval, self.clock.action
        self.clock.rings, self.clock.action = math.inf, None
        self.invocation = self.last = mine = Invocation([*script])
        said: dict[str, Any] | None = None
        try:
            said = self.function.handler(json.loads(json.dumps(event)), self)
            json.dumps(said)
        except Killed:
            pass
        except Exception as error:
            # All that Lambda writes down and hands on.
            if not isinstance(error, (self.function.TriggerError, ClientError, BotoCoreError)):
                self.wrong.append(f"{error!r} is of no kind that it may be")
            self.log += traceback.format_exception(error)
            self.log += [f"{each!r}" for each in (error, error.__cause__) if each]
        finally:
            self.clock.rings, self.clock.interval, self.clock.action = alarm
        took = self.clock.now - began
        if took >= SECONDS and not mine.dead:
            self.wrong.append(f"it took {took} seconds with {script}")
        written = "\n".join(self.log[here:])
        self.wrong += [f"{word} is in {written}" for word in self.secrets if word in written]
        self.invocation, self.last = outer, mine
        if outer is not None:
            # Those that run at the same time take no time of each other's.
            self.clock.now = began
        return said

    # The servers.

    def connect(self, address: tuple[str, int], timeout: float, *_: Any) -> Socket:
        """Stands in for socket.create_connection."""
        mine = self.mine
        mine.requests += 1
        weather = mine.script.pop(0) if mine.script else Weather()
        if address not in (("127.0.0.1", 8001), ("127.0.0.1", 8002)):
            self.wrong.append(f"asked {address} with the credential")
        if weather.kind == "refused":
            raise ConnectionRefusedError(111, "Connection refused")
        if weather.kind == "unresolved":
            raise socket.gaierror(-2, "Name or service not known")
        return Socket(self.clock, timeout, lambda sent: self._answers(weather, Request.of(sent)))

    @property
    def mine(self) -> Invocation:
        assert self.invocation is not None
        return self.invocation

    def _answers(self, weather: Weather, request: Request) -> Iterator[bytes | float]:
        """Return what comes back, and do what happens in between."""
        self.secrets |= request.credentials
        self.wrong += request.wrong
        kind, status = weather.kind, weather.status
        if weather.acts and kind not in ("details", "torn", "flood"):
            self._act(request, told=False)
        if weather.late:
            yield weather.late
        if kind == "fair":
            yield self._served(request)
        elif kind == "meanwhile":
            self._meanwhile(weather.text)
            yield self._served(request)
        elif kind == "lie":
            if request.dispatch:
                self.lies.append(self._approval())
            yield reply(204)
        elif kind == "details":
            self._act(request, told=True)
            quoted = weather.text.replace("TOKEN", min(request.credentials))
            yield reply(status, quoted.encode("utf-8", "surrogatepass"))
        elif kind == "torn":
            self._act(request, told=True)
            yield b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"
            raise ConnectionResetError(104, "Connection reset by peer")
        elif kind == "flood":
            self._act(request, told=True)
            yield b"HTTP/1.1 200 OK\r\n\r\n"
            yield from itertools.repeat(b"x" * 8192, 1000)
            self.wrong.append("read eight megabytes of an answer")
        elif kind == "status":
            words = weather.text.replace("TOKEN", max(request.credentials, key=len))
            body = json.dumps({"message": words}).encode()
            after = weather.retry_after
            headers = {} if after is None else {"Retry-After": after}
            yield reply(status, body, words if words.isprintable() else "No", **headers)
        elif kind == "redirect":
            location = weather.text.replace("PATH", request.path)
            yield reply(status, Location=location.replace("TOKEN", min(request.credentials)))
        elif kind == "garbage":
            yield weather.text.encode("latin-1", "replace")
        elif kind == "slow error":
            yield b"HTTP/1.1 503 Busy\r\n\r\n"
            yield from itertools.cycle([5.0, b"x"])
        elif kind == "dribble":
            yield from itertools.cycle([5.0, b"x"])
        elif kind == "continue":
            yield from itertools.cycle([1.0, b"HTTP/1.1 100 Continue\r\n\r\n"])
        elif kind == "silent":
            yield math.inf
        elif kind == "reset":
            raise ConnectionResetError(104, "Connection reset by peer")
        elif kind == "killed":
            self.mine.dead = True
            raise Killed
        else:
            assert kind == "gone", kind

    def _served(self, request: Request) -> bytes:
        """Do what an honest server does."""
        if request.path.endswith("/access_tokens"):
            return reply(201, json.dumps({"token": INSTALLED}).encode())
        if not request.dispatch:
            return reply(404, b'{"message": "Not Found"}')
        self._act(request, told=True)
        if request.host == "127.0.0.1:8002":
            return reply(201, Location="https://jenkins.test/queue/item/5/")
        return reply(204)

    def _act(self, request: Request, told: bool) -> None:
        """Begin the deployment that is asked for; it must be one that may be."""
        if not request.dispatch:
            return
        read, dispatch = self.mine.read, request.dispatch
        if read is None or self.mine.status != "Approved":
            self.wrong.append(f"{dispatch} is asked for, and the registry said {self.mine.status}")
            return
        project = read.project
        own = urllib.parse.urlsplit(project.repository).path.removesuffix(".git").strip("/")
        wanted = (own, read.arn, project.commit, project.ci == "jenkins")
        if not project.ours or (*dispatch, request.host == "127.0.0.1:8002") != wanted:
            self.wrong.append(f"{dispatch} is asked for, and {wanted} is approved")
        self.dispatches.append(Dispatch(*self._approval(), told))

    def _approval(self) -> tuple[str, float]:
        """Of the version that the function has read: the one that stands."""
        read = self.mine.read
        return (read.arn, self.mine.approval) if read else ("", 0.0)

    def _meanwhile(self, what: str) -> None:
        """Do what happens while a request is in progress."""
        version = self.mine.read
        if version is None:
            return
        if what == "replay":
            self.replay(version, [])
        elif what == "event" and self.events:
            self.deliver(self.events[-1], [])
        elif what == "edit":
            self.edit(version)
        elif what in ("Approved", "Rejected"):
            self.change(version, what)

    # What must have come of it in the end.

    def settle(self) -> None:
        """Deliver what is left, in fair weather; then no approval may be lost, and none doubled."""
        self.trouble = ""
        for event in [e for e in self.events if e["id"] not in self.delivered]:
            self.deliver(event, [])
        while self.retries:
            self.retry([])
        told = Counter((d.arn, d.approval) for d in self.dispatches if d.told)
        again = Counter(self.by_hand) + Counter(self.edits)
        self.wrong += [
            f"{approval} was started {count} times"
            for approval, count in told.items()
            if count > 1 + again[approval]
        ]
        begun = {(d.arn, d.approval) for d in self.dispatches} | {*self.lies}
        for version in self.versions:
            if version.status == "Approved" and version.arn not in self.deleted:
                self._settled(version, (version.arn, version.approvals[-1]), begun)

    def _settled(self, version: Version, approval: tuple[str, float], begun: set[Any]) -> None:
        letters = self._hold(self.letters, approval)
        if not version.project.ours:
            # Until the registry answers, nobody knows whose it is, and in the end somebody is told.
            told = letters and "describe_model_package" not in self.unanswered
            if approval in begun or told:
                self.wrong.append(f"{approval} is nobody's here")
        elif not version.project.deployable:
            if approval in begun or not letters | self._hold(self.dropped, approval):
                self.wrong.append(f"nobody is told that {approval} cannot be deployed")
        elif letters or self._hold(self.dropped, approval):
            said = self.replay(version, [])
            if not said or not said["started"]:
                self.wrong.append(f"{approval} cannot be started by hand: {said}")
        elif approval not in begun:
            self.wrong.append(f"{approval} is lost")

    def _hold(self, events: list[Any], approval: tuple[str, float]) -> bool:
        """Whether one of them reports this approval."""
        arn, at = approval
        return any(e["detail"]["ModelPackageArn"] == arn and e["time"] >= at for e in events)


@dataclass(frozen=True)
class Request:
    """A request as it was sent. `dispatch`: repository, version and commit it asks to deploy."""

    host: str
    path: str
    dispatch: tuple[str, str, str] | None
    credentials: set[str]
    wrong: list[str]

    @classmethod
    def of(cls, sent: bytes) -> Request:
        head, _, body = sent.decode("latin-1").partition("\r\n\r\n")
        first, *lines = head.split("\r\n")
        headers = dict(line.split(": ", 1) for line in lines)
        path = first.split(" ")[1].removeprefix("/moved")
        scheme, _, word = headers["Authorization"].partition(" ")
        pair = base64.b64decode(word).decode() if scheme == "Basic" else ""
        dispatch = None
        if found := re.fullmatch("/repos/(.+)/actions/workflows/deploy.yml/dispatches", path):
            given = json.loads(body)["inputs"]
            dispatch = (found[1], given["model-package-arn"], given["commit"])
        elif found := re.fullmatch("/job/(.+)/job/(.+)/job/main/buildWithParameters", path):
            given = dict(urllib.parse.parse_qsl(body))
            dispatch = (f"{found[1]}/{found[2]}", given["MODEL_PACKAGE_ARN"], given["COMMIT"])
        words = {word, pair, pair.partition(":")[2]} - {""}
        api = path.startswith(("/repos/", "/app/"))
        wrong = github_description.asked("POST", path, json.loads(body)) if api else []
        return cls(headers["Host"], path, dispatch, words, wrong)


def reply(status: int, body: bytes = b"", reason: str = "Words", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body
