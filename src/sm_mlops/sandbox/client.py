"""Starting, finding and ending the sandbox's server from another process. Standard library only.

A server belongs to the process that started it and ends with it, or runs until `stop`. Other
processes keep it alive with an open connection (a lease) while they use it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hmac
import http.client
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sm_mlops.sandbox import images

FOLDER = ".sandbox"
RECORD = "server.json"
SERVER_LOCK = "server.lock"
START_LOCK = "start.lock"
KEY = "key.json"
END_SECONDS = 20


class SandboxError(Exception):
    """Something the user can fix; the message is one line."""


class Key(NamedTuple):
    """The access key of the sandbox's account: whoever has it owns the account."""

    id: str
    secret: str


@dataclass(frozen=True)
class Status:
    """A server that answers."""

    pid: int
    port: int
    region: str
    standing: bool

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def connect(root: Path, region: str) -> Iterator[dict[str, str]]:
    """Use the sandbox of a repository; start it when it is not running.

    Yields the environment variables to set while connected; remove those with the
    value "". When this process leaves normally, a server that it started stays until running
    executions have ended; when it is killed, the server ends at once. Raises SandboxError.
    """
    folder = Path(root).resolve() / FOLDER
    with _held(folder, region) as port:
        yield environment(folder, port, region)


@contextlib.contextmanager
def _held(folder: Path, region: str) -> Iterator[int]:
    process: subprocess.Popen[bytes] | None = None
    with _start_lock(folder):
        found = _hold(folder, region)
        if found is None:
            process, port = _spawn(folder, region, standing=False)
        else:
            lease, port = found
    if process is None:
        try:
            yield port
        finally:
            lease.close()
        return
    assert process.stdin is not None
    try:
        yield port
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"bye\n")
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        _let_go(process)


def _hold(folder: Path, region: str) -> tuple[http.client.HTTPConnection, int] | None:
    """Take a lease on the running server, if there is one."""
    found = _record(folder)
    if found is None:
        return None
    running = status(folder.parent)
    if running is None:
        return None
    if running.region != region:
        raise SandboxError(
            f"the sandbox runs with region {running.region}, not {region}; "
            "end it with: mlops sandbox down"
        )
    lease = http.client.HTTPConnection("127.0.0.1", found["port"])
    try:
        lease.request("POST", "/_sandbox/lease", headers={"X-Sandbox-Token": found["token"]})
        answer = lease.getresponse()
    except (OSError, http.client.HTTPException):
        return None
    return (lease, found["port"]) if answer.status == 200 else None


def start(root: Path, region: str) -> Status:
    """Start a server that runs until `stop`, or use one that already does. Raises SandboxError."""
    folder = Path(root).resolve() / FOLDER
    with _start_lock(folder):
        running = status(root)
        if running is None:
            process, _ = _spawn(folder, region, standing=True)
            _let_go(process)
        elif not running.standing or running.region != region:
            raise SandboxError(
                f"a sandbox is running already (process {running.pid}, region {running.region}, "
                "started by another command); wait for it or end it with: mlops sandbox down"
            )
    running = status(root)
    if running is None:
        raise SandboxError(f"the sandbox ended right after its start; see {folder / 'server.log'}")
    return running


def status(root: Path) -> Status | None:
    """Return the running server of a repository, None if there is none."""
    folder = Path(root).resolve() / FOLDER
    found = _record(folder)
    answer = _ask(found, "status") if found else None
    if found is None or answer is None or answer["root"] != str(folder.parent):
        return None
    return Status(answer["pid"], found["port"], answer["region"], answer["standing"])


def stop(root: Path) -> bool:
    """End the server and its running executions; return whether a server ran."""
    folder = Path(root).resolve() / FOLDER
    if not folder.is_dir() or _holder(folder) is None:
        return False
    found = _record(folder)
    if found is not None:
        _ask(found, "stop")
    if not _wait_until_free(folder, END_SECONDS if found else 1):
        # It holds the lock on the state, so this is the server, with or without its record.
        holder = _holder(folder)
        if holder:
            os.kill(holder, signal.SIGKILL)
        _wait_until_free(folder, END_SECONDS)
    (folder / RECORD).unlink(missing_ok=True)
    return True


def reset(root: Path) -> None:
    """End a running server and delete everything that the sandbox remembers."""
    folder = Path(root).resolve() / FOLDER
    for left in (2, 1, 0):
        stop(root)
        try:
            return shutil.rmtree(folder) if folder.is_dir() else None
        except OSError as error:
            if not left:
                raise SandboxError(f"cannot delete {folder}: {error.strerror}") from error
            time.sleep(0.5)  # for a server that was about to start


def environment(folder: Path, port: int, region: str) -> dict[str, str]:
    """Return the variables that point AWS clients to the sandbox, "" for those to remove."""
    absent, key = str(folder / "no-aws-config"), account_key(folder)
    loopback = "127.0.0.1,localhost"
    variables = dict.fromkeys(
        (
            "AWS_PROFILE",
            "AWS_DEFAULT_PROFILE",
            "AWS_SESSION_TOKEN",
            "AWS_SECURITY_TOKEN",
            "AWS_ROLE_ARN",
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
            "AWS_USE_FIPS_ENDPOINT",
            "AWS_USE_DUALSTACK_ENDPOINT",
            "AWS_CA_BUNDLE",
            *(name for name in os.environ if name.startswith("AWS_ENDPOINT_URL_")),
        ),
        "",
    )
    return variables | {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": key.id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_CONFIG_FILE": absent,
        "AWS_SHARED_CREDENTIALS_FILE": absent,
        "AWS_EC2_METADATA_DISABLED": "true",
        "GITHUB_API_URL": f"http://127.0.0.1:{port}/_github/api/v3",
        "GITHUB_SERVER_URL": f"http://127.0.0.1:{port}/_github",
        "SAGEMAKER_VALIDATE_ROLE": "false",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY"), loopback))),
        "no_proxy": ",".join(filter(None, (os.environ.get("no_proxy"), loopback))),
    }


def control(root: Path, call: str, *args: Any, **kwargs: Any) -> Any:
    """Do in a running sandbox what a person does in a console; see integrations.CONTROLS.

    `control(root, "connections.complete", "my-connection")`. Raises SandboxError.
    """
    found = _record(Path(root).resolve() / FOLDER)
    if found is None:
        raise SandboxError("no sandbox is running; start it with: mlops sandbox up")
    body = json.dumps({"call": call, "args": args, "kwargs": kwargs})
    try:
        code, content = _send(found, "control", body, timeout=30)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SandboxError(f"the sandbox does not answer: {error}") from error
    if code != 200:
        raise SandboxError(str(content.get("message", content)))
    return content["answer"]


def workflow_environment(root: Path, repository: str, **job: str) -> dict[str, str]:
    """Return the variables of a job of GitHub Actions that has signed in to the sandbox's AWS.

    For a repository ("acme/churn") of the sandbox's GitHub; `job` as workflow.environment takes it.
    Remove variables with the value "". Raises SandboxError when AWS refuses the sign-in.
    """
    found: dict[str, str] = control(root, "workflows.environment", repository, **job)
    return found


def write_record(folder: Path, port: int, token: str, region: str) -> None:
    """Record, for this user only, how to reach the server of this process."""
    content = {"pid": os.getpid(), "port": port, "token": token, "region": region}
    _write(folder / RECORD, json.dumps({**content, "started": time.time()}))


def account_key(folder: Path) -> Key:
    """Return the access key of the sandbox with this state, made at random when first needed."""
    file = folder / KEY
    if not file.exists():
        made = Key("AKIA" + base64.b32encode(secrets.token_bytes(10)).decode(), secrets.token_hex())
        _write(file, json.dumps(made))
    return Key(*json.loads(file.read_text()))


def own(folder: Path) -> None:
    """Make a state folder that nobody else can enter. Raises SandboxError for someone else's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SandboxError(f"{folder} belongs to another user; delete it, or work in another copy")
    folder.chmod(0o700)


def same(one: str, other: str) -> bool:
    """Compare secrets in constant time."""
    return hmac.compare_digest(one.encode(), other.encode())


def _write(file: Path, text: str) -> None:
    """Write a file, at once and for this user only."""
    temporary = file.with_name(f"{file.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(file)


def _record(folder: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) and {"port", "token"} <= set(found) else None


def _ask(found: dict[str, Any], action: str) -> dict[str, Any] | None:
    """Send a request to the recorded server; return None if it does not run."""
    try:
        code, content = _send(found, action)
    except (OSError, http.client.HTTPException, ValueError):
        return None
    return content if code == 200 else None


def _send(
    found: dict[str, Any], action: str, body: str | None = None, timeout: float = 10
) -> tuple[int, dict[str, Any]]:
    """Send a request to the recorded server; return the status and content of its answer."""
    connection = http.client.HTTPConnection("127.0.0.1", found["port"], timeout=timeout)
    with contextlib.closing(connection):
        headers = {"X-Sandbox-Token": found["token"]}
        connection.request("POST", f"/_sandbox/{action}", body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def _holder(folder: Path) -> int | None:
    """Return the id of the process that has the state open, 0 if not yet known."""
    path = folder / SERVER_LOCK
    if not path.exists():
        return None
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return int(file.read() or 0)
    return None


def _wait_until_free(folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while _holder(folder) is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@contextlib.contextmanager
def _start_lock(folder: Path) -> Iterator[None]:
    """Let one process at a time look for a server and start one."""
    try:
        own(folder)
        file = (folder / START_LOCK).open("w")
    except OSError as error:
        raise SandboxError(f"cannot write to {folder}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _let_go(process: subprocess.Popen[bytes]) -> None:
    """Detach from a server; if it ends before this process, it leaves no zombie."""
    threading.Thread(target=process.wait, daemon=True).start()


def _spawn(folder: Path, region: str, standing: bool) -> tuple[subprocess.Popen[bytes], int]:
    # A server that is about to end still has the state open for a moment.
    if not _wait_until_free(folder, END_SECONDS):
        raise SandboxError(
            f"process {_holder(folder)} holds {folder} and does not answer; "
            "end it with: mlops sandbox down"
        )
    try:
        images.make()
    except images.ImageError as error:
        raise SandboxError(str(error)) from error
    # Nothing of the developer's own: neither credentials nor personal settings.
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONNOUSERSITE": "1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_DEFAULT_REGION": region,
        # glibc would keep the space of every upload's parts, thread by thread.
        "MALLOC_ARENA_MAX": "2",
        "MALLOC_MMAP_THRESHOLD_": "1048576",
    }
    package = Path(__file__).resolve().parents[1]
    bootstrap = f"import sys; sys.path.insert(0, {str(package.parent)!r}); "
    bootstrap += "from sm_mlops.sandbox.daemon import main; main()"
    command = [sys.executable, "-c", bootstrap, str(folder.parent), region]
    with (folder / "server.log").open("ab") as errors:
        process = subprocess.Popen(
            [*command, "--standing"] if standing else command,
            stdin=subprocess.DEVNULL if standing else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
            cwd=folder,
            # Ctrl-C in the terminal is for the command, not for the server.
            start_new_session=True,
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.stdout.close()
    answer = json.loads(line) if line else {}
    if "port" not in answer:
        process.kill()
        process.wait()
        default = f"the sandbox did not start; see {folder / 'server.log'}"
        raise SandboxError(answer.get("error", default))
    return process, answer["port"]
