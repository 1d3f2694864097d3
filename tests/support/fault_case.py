"""Commands whose every outside call is noted, played again, and made to fail.

A front stands before the sandbox: what a command asks AWS and GitHub for goes through it, what the
sandbox's services ask each other does not. A command with its first calls answered from the record
meets a fault at the next one as if it had come all the way, in a fraction of the time.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import select
import shutil
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.config import Config
from botocore.retries.standard import ExponentialBackoff
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection
from werkzeug.serving import make_server

from account_case import differences, everything
from deployment_cases import Place
from direct_case import Answer, Clients, answer, direct, directly
from fault_injection import inject, inject_github, operation
from github_case import commit, identify
from repos import Repo, make_repo
from sm_mlops import github, projects, stacks, templates
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import push
from sm_mlops.cli import main as cli
from sm_mlops.cli.sandbox_account import prepare
from sm_mlops.sandbox import Server, client, moto_app
from sm_mlops.sandbox.github.service import API, PREFIX
from sm_mlops.sandbox.signatures import claimed
from sm_mlops.training.run import ensure_model_package_group

REGION = "eu-west-1"
OWNER, NAME, PERSON = "acme", "churn", "ada"
# An answer that something is broken, none at all until the client gives up, one that says to wait,
# and a connection cut after the server has acted.
WAYS = ("error", "timeout", "throttled", "lost")
READS = ("Get", "List", "Describe", "Head", "Search")
ADMINISTRATOR = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}'
)


@dataclass(frozen=True)
class Call:
    """An outside call and its answer: "s3 PutObject" or "GET /repos/acme/churn"."""

    label: str
    answer: Answer = ("500 Nobody hears it", {}, b"")

    def send(self, start: Callable[..., Any]) -> Iterable[bytes]:
        """Give the answer as WSGI wants it."""
        status, headers, body = self.answer
        start(status, list(headers.items()))
        return [body]

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        verb = self.label.split()[-1] if self.label[0].islower() else self.label.split()[0].title()
        return verb.startswith(READS) or self.label.endswith(("info/refs", "dispatches"))


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code (None for a traceback) and what it printed."""

    code: int | None
    out: str
    err: str


class Front:
    """Stands before one sandbox after the other, always at the same address. Calls from this
    process go through `ask`, those of git and those that are to fail through a socket."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.calls: list[Call] = []
        self.script: Sequence[Call] = ()
        self.on_call: Callable[[int, str], str | None] = lambda number, label: None
        """Told of each call that is not played; returns the way in which it is to fail."""
        self.strayed, self.met = "", ""
        self.silent: set[int] = set()
        """The ports of clients that wait for an answer they do not get."""
        self._way: str | None = None
        self._lock = threading.Lock()
        self._http = make_server(
            "127.0.0.1", 0, self._answer, threaded=True, request_handler=moto_app.Handler
        )

    @property
    def port(self) -> int:
        return int(self._http.server_port)

    def __enter__(self) -> Front:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def begin(self, script: Sequence[Call] = ()) -> None:
        """Forget what was called, and play these calls first."""
        # A call whose connection is cut may still be at work.
        with self._lock:
            self.calls, self.script, self.strayed, self.met = [], script, "", ""
            self._way = None
            self.on_call = lambda number, label: None

    def ask(self, environ: dict[str, Any]) -> Answer | None:
        """Answer a call that comes without a socket; None where it fails, which takes one."""
        with self._lock:
            label = _label(environ)
            if len(self.calls) < len(self.script):
                return self._play(label).answer
            self._way = self.on_call(len(self.calls), label)
            return None if self._way else self._serve(label, environ).answer

    def _answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        with self._lock:
            label = _label(environ)
            if len(self.calls) < len(self.script):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return self._play(label).send(start)
            way, self._way = self._way or self.on_call(len(self.calls), label), None
            if way:
                self.met = label
            if way != "timeout":
                if way:
                    assert self.server is not None
                    _inject(self.server, way, label)
                return self._serve(label, environ).send(start)
            self.calls.append(Call(label))
        return self._say_nothing(environ, start)

    def _play(self, label: str) -> Call:
        call = self.script[len(self.calls)]
        if call.label != label:
            self.strayed = f"call {len(self.calls)} was {call.label}, and is {label} now"
        self.calls.append(call)
        return call

    def _serve(self, label: str, environ: dict[str, Any]) -> Call:
        assert self.server is not None
        self.calls.append(Call(label, answer(self.server, environ)))
        return self.calls[-1]

    def _say_nothing(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        """Keep the connection open until the client has closed it."""
        connection, port = environ["werkzeug.socket"], int(environ["REMOTE_PORT"])
        self.silent.add(port)
        connection.settimeout(20)
        try:
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            self.strayed = "nobody gave up waiting for the answer"
        except ConnectionError:
            pass
        self.silent.remove(port)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return Call("").send(start)


def _label(environ: dict[str, Any]) -> str:
    claim = claimed(environ) if "HTTP_X_AMZ_DATE" in environ else None
    if claim:
        return f"{claim.service} {operation(claim.service, environ)}"
    return f"{environ['REQUEST_METHOD']} {_place(environ['PATH_INFO'])}"


def _place(path: str) -> str:
    return path.removeprefix(PREFIX).removeprefix(API)


def _inject(server: Server, way: str, label: str) -> None:
    """Let the next call fail."""
    acts = way == "lost"
    if not label[0].islower():
        status = {"error": 500, "throttled": 429}.get(way, 0)
        headers = {"Retry-After": "600"} if way == "throttled" else {}
        inject_github(server.github, "*", status, "injected", headers, acts=acts)
        return
    if way == "error":
        inject(server, "*", "InternalFailure", status=500, agent="sm-mlops")
    elif way == "throttled":
        code = "SlowDown" if label.startswith("s3 ") else "ThrottlingException"
        status = 503 if label.startswith("s3 ") else 400
        inject(server, "*", code, "Rate exceeded", status=status, agent="sm-mlops")
    else:
        inject(server, "*", status=0, acts=acts, agent="sm-mlops")


def idle(server: Server) -> bool:
    """Tell whether no stack, project or function is at work."""
    return not server.stacks.running and not server.integrations.busy()


def settle(server: Server) -> None:
    """Wait until nothing is under way."""
    end = time.monotonic() + 60
    while not idle(server):
        assert time.monotonic() < end, "the sandbox does not come to rest"
        time.sleep(0.002)


@dataclass
class Stage:
    """A repo and a sandbox in a folder that can be put back to how it was."""

    folder: Path
    front: Front
    variables: dict[str, str] = field(default_factory=dict)
    repo: Repo = field(init=False)
    at: str = ""
    """The name under which everything is kept as it is now; empty where it has changed since."""

    def __post_init__(self) -> None:
        self.now, self.clients = self.folder / "now", Clients()
        self.repo = Repo(self.now / NAME)

    @property
    def server(self) -> Server:
        assert self.front.server is not None
        return self.front.server

    def up(self) -> None:
        """Start the sandbox."""
        self.front.server = Server(self.now / "server", REGION, pace=0.01).start()
        self.clients.server = self.front.server

    def down(self) -> None:
        """End it."""
        if self.front.server is not None:
            self.front.server.close()
            self.front.server = None

    def keep(self, name: str) -> None:
        """Write everything down as it is now, while nothing is under way."""
        target = self.folder / name
        if target.exists():
            return
        self.server.moto.flush()
        shutil.copytree(
            self.now,
            target,
            symlinks=True,
            ignore=shutil.ignore_patterns("state.db*", "server.lock", "server.json"),
        )
        folder = self.server.folder.relative_to(self.now)
        with contextlib.closing(sqlite3.connect(target / folder / "state.db")) as copy:
            self.server.store._db.backup(copy)

    def back_to(self, name: str) -> None:
        """Start the sandbox as it was kept."""
        if self.at == name:
            return
        self.down()
        shutil.rmtree(self.now, ignore_errors=True)
        shutil.copytree(self.folder / name, self.now, symlinks=True)
        self.up()
        self.at = name

    def command(self, *words: str) -> Outcome:
        """Run `mlops` in this process."""
        self.at = ""
        out, err = io.StringIO(), io.StringIO()
        code: int | None = 0
        with (
            pytest.MonkeyPatch.context() as patch,
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            patch.chdir(self.repo.root)
            patch.setattr(sys, "argv", ["mlops", *words])
            # The sandbox is in this process, and not to be spoken of.
            ours = {name: each for name, each in sys.modules.items() if name != "sandbox"}
            patch.setattr(cli, "sys", SimpleNamespace(modules=ours, stdout=out, argv=sys.argv))
            for name, value in self.variables.items():
                patch.setenv(name, value) if value else patch.delenv(name, raising=False)
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
            except Exception as error:
                code = None
                err.write(f"Traceback: {type(error).__name__}: {error}")
                self.error = error
        return Outcome(code, out.getvalue(), err.getvalue())

    def everything(self) -> dict[str, Any]:
        """Return all there is, without identifiers and times."""
        settle(self.server)
        return everything(self.clients, self.repo.root, f"{OWNER}/{NAME}")


@contextlib.contextmanager
def stage(folder: Path, **identity: str) -> Iterator[Stage]:
    """Yield a committed repo, an account with only an administrator, and GitHub with the
    repo's owner; every call of a command is tried once."""
    with Front() as front, pytest.MonkeyPatch.context() as patch:
        _hurry(patch, front)
        found = Stage(folder, front)
        repo = make_repo(found.repo.root)
        identify(repo, **identity)
        commit(repo)
        found.up()
        try:
            server = found.server
            iam = server.client(REGION, "iam")
            iam.create_user(UserName=PERSON)
            iam.put_user_policy(UserName=PERSON, PolicyName="all", PolicyDocument=ADMINISTRATOR)
            key = iam.create_access_key(UserName=PERSON)["AccessKey"]
            accounts = server.github.accounts
            accounts.add(PERSON)
            accounts.add(OWNER, "Organization", **{PERSON: "admin"})
            found.variables = {
                **client.environment(server.folder, front.port, REGION),
                "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
                "GITHUB_TOKEN": accounts.token(PERSON, "repo", "workflow", "read:org"),
                "MLOPS_TRIGGER_TOKEN": accounts.fine_grained(PERSON, OWNER, None, actions="write"),
                "GH_TOKEN": "",
                "MLOPS_SANDBOX": "",
                "GIT_CONFIG_NOSYSTEM": "1",
                "HOME": str(folder),
            }
            yield found
        finally:
            found.down()


def _hurry(patch: pytest.MonkeyPatch, front: Front) -> None:
    """Keep clients, pause briefly, and give a call up that has failed once or is not answered."""
    made: dict[Any, Any] = {}
    real, answered, sent = Aws.client, HTTPConnection.getresponse, HTTPAdapter.send

    def cached(self: Aws, service: str, attempts: int = 9) -> Any:
        key = (service, os.environ.get("AWS_ENDPOINT_URL"), github.ATTEMPTS)
        if key not in made:
            made[key] = direct(real(self, service, attempts), front.ask)
        return made[key]

    def send(self: HTTPAdapter, request: Any, **more: Any) -> Any:
        return directly(self, request, front.ask) or sent(self, request, **more)

    class Impatient(Config):
        """The configuration of a client, with as many attempts as GitHub's."""

        def __init__(self, **given: Any) -> None:
            retries = {"mode": "standard", "total_max_attempts": github.ATTEMPTS}
            super().__init__(**given | {"retries": retries})

    def getresponse(self: HTTPConnection) -> Any:
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        port = self.sock.getsockname()[1]
        while port not in front.silent and not poll.poll(2):
            pass
        if port in front.silent:
            self.timeout = 0.001
        return answered(self)

    def sleep(seconds: float) -> None:
        # A command that waits looks again when there is something new to see.
        time.sleep(min(seconds, 0.002))
        if front.server is not None:
            settle(front.server)

    quick = SimpleNamespace(monotonic=time.monotonic, sleep=sleep)
    patch.setattr(Aws, "client", cached)
    patch.setattr("botocore.config.Config", Impatient)
    patch.setattr(stacks, "time", quick)
    patch.setattr(projects, "time", quick)
    patch.setattr(github, "ATTEMPTS", 1)
    patch.setattr(github, "BACKOFF_SECONDS", 0)
    patch.setattr(push, "SILENCE_SECONDS", 1)
    patch.setattr(HTTPConnection, "getresponse", getresponse)
    patch.setattr(HTTPAdapter, "send", send)
    patch.setattr(templates, "parameters", functools.cache(templates.parameters))


@dataclass(frozen=True)
class Verdict:
    """What became of a fault: how the command ended, and what is wrong, which is nothing where
    all is well."""

    label: str
    way: str
    told: str
    wrong: tuple[str, ...] = ()


class Campaign:
    """A command, the calls of a clean run, and what there is after it."""

    def __init__(self, stage: Stage, *words: str) -> None:
        """Run it cleanly, and keep how everything was after each change."""
        self.stage, self.words, self.proven = stage, words, set[int]()
        front = stage.front
        front.begin()
        front.on_call = self._note
        self.began_with = stage.everything()
        done = stage.command(*words)
        self.calls = tuple(front.calls)
        assert done.code == 0, done.out + done.err
        self.wanted = stage.everything()

    def _note(self, number: int, label: str) -> None:
        settle(self.stage.server)
        self.stage.keep(self._kept(number, self.stage.front.calls))

    def _kept(self, number: int, calls: Sequence[Call]) -> str:
        """Where the state before a call is kept: every change makes a new one."""
        return f"{'-'.join(self.words)}-{self._changes(number, calls)}"

    def _changes(self, number: int, calls: Sequence[Call]) -> int:
        return sum(not call.reads for call in calls[:number])

    def meet(self, number: int, way: str) -> Verdict:
        """Let call `number` fail, then run the command again and compare what there is."""
        call, stage, front = self.calls[number], self.stage, self.stage.front
        changes = self._changes(number, self.calls)
        kept = self._kept(number, self.calls)
        stage.back_to(kept)
        front.begin(self.calls[:number])
        front.on_call = lambda at, label: self._fail(at, number, way)
        done = stage.command(*self.words)
        wrong = list(_amiss(done))
        if front.strayed or front.met != call.label:
            wrong.append(front.strayed or f"call {number} was {front.met or 'not met'}")
        changed = any(not each.reads for each in front.calls[number + 1 :])
        changed = changed or ".git/" in call.label or (way == "lost" and not call.reads)
        # From here the command has gone on to the end already.
        if changed or changes not in self.proven:
            wrong += self._again()
            if not changed and not wrong:
                self.proven.add(changes)
        else:
            stage.at = kept
        if way == "lost" and not call.reads and not wrong:
            # Where the next calls would leave off.
            self.proven.add(changes + 1)
        lines = done.err.splitlines() or [""]
        return Verdict(call.label, way, lines[-1] if done.code else "got through", tuple(wrong))

    def _fail(self, at: int, number: int, way: str) -> str | None:
        settle(self.stage.server)
        return way if at == number else None

    def _again(self) -> Iterator[str]:
        self.stage.front.begin()
        done = self.stage.command(*self.words)
        if done.code != 0:
            yield f"the next run ended with {done.code}: {done.err.strip()}"
        yield from differences(self.wanted, self.stage.everything())

    def all_once(self, way: str) -> Verdict:
        """Let every call fail once and be tried again at once, in one run; what does not try again
        ends the command, which is given again."""
        stage, front = self.stage, self.stage.front
        stage.back_to(self._kept(0, ()))
        wrong: list[str] = []
        failed: set[str] = set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(github, "ATTEMPTS", 2)
            patch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0)
            for _ in self.calls:
                front.begin()
                last = [""]

                def hook(number: int, label: str, last: list[str] = last) -> str | None:
                    settle(stage.server)
                    again, last[0] = last[0] == label, "" if last[0] == label else label
                    untried = label not in failed or ".git/" not in label
                    failed.add(label)
                    return way if untried and not again else None

                front.on_call = hook
                done = stage.command(*self.words)
                wrong += _amiss(done)
                if done.code == 0:
                    break
            else:
                wrong.append("it never came to its end")
        missed = {call.label for call in self.calls} - failed
        wrong += [f"{label} was never called" for label in sorted(missed)]
        wrong += differences(self.wanted, stage.everything())
        return Verdict("every call", way, "got through", tuple(wrong))


def _amiss(done: Outcome) -> Iterator[str]:
    """Return what is wrong with how a command has ended."""
    if done.code == 0:
        return
    lines = [line for line in done.err.splitlines() if line.startswith("mlops: ")]
    if done.code is None or "Traceback" in done.err:
        yield f"a traceback: {done.err.strip()}"
    elif len(lines) != 1 or len(done.err.strip().splitlines()) != 1:
        yield f"more than a line: {done.err.strip()}"


def deployable(stage: Stage) -> str:
    """Put a version into the account, and a stage into the repo; return the version's ARN."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in stage.variables.items():
            patch.setenv(name, value) if value else patch.delenv(name, raising=False)
        place = Place(stage.repo, stage.server)
        prepare(place.aws)
        ensure_model_package_group(place.aws)
        place.stage("staging")
        return place.register()


__all__ = [
    "WAYS",
    "Call",
    "Campaign",
    "Outcome",
    "Stage",
    "Verdict",
    "deployable",
    "settle",
    "stage",
]
