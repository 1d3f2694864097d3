"""Start a run on GitHub or Jenkins: sign in, send the request, follow what a server may ask for.

The credential comes from Secrets Manager and is sent only to its own server. Must not know why a
run is started.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import json
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from registry import Repository, TriggerError, client  # type: ignore[import-not-found]

# A request begins only if it can wait that long for its answer: one that is cut off may have
# started a run unnoticed.
HTTP_SECONDS = 8
# How much of an answer is read: addresses and tokens are short.
LONGEST_ANSWER = 65_536


@dataclass(frozen=True)
class Run:
    """What to start: GitHub's workflow with these inputs, or Jenkins' job with these parameters."""

    workflow: str
    inputs: dict[str, str]
    parameters: dict[str, str]


def start(where: Repository, run: Run, deadline: float) -> str:
    """Start a run and return its address, "" if unknown. Raise TriggerError, at the deadline, too.

    `deadline` is a reading of time.monotonic.
    """
    with _until(deadline):
        post = functools.partial(_post, deadline=deadline)
        if where.ci == "jenkins":
            return _start_jenkins(where, run, post)
        return _start_github(where, run, post)


def _start_github(where: Repository, run: Run, post: Callable[..., Answer]) -> str:
    api = os.environ.get("GITHUB_API", "https://api.github.com").rstrip("/")
    post_json = functools.partial(_post_json, post)
    body = {
        "ref": os.environ.get("REF", "main"),
        "inputs": run.inputs,
        # GitHub Enterprise Server before 3.21 refuses what it does not know.
        **({"return_run_details": True} if where.host == "github.com" else {}),
    }
    own = f"/{where.path}/actions"
    token = _github_token(api, post_json, where.name)
    answer = post_json(f"{api}/repos{own}/workflows/{run.workflow}/dispatches", body, token)
    # It is started, whatever the answer contains.
    page = str((_object(answer.body) or {}).get("html_url", ""))
    is_own = re.fullmatch(rf"https?://[!-~]{{1,253}}{re.escape(own)}/runs/[0-9]+", page, re.I)
    return page if is_own and token not in page else ""


def _post_json(post: Callable[..., Answer], address: str, body: Any, token: str) -> Answer:
    """Send a request of GitHub's API."""
    headers = {
        "Accept": "application/vnd.github+json",
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    return post(address, json.dumps(body).encode(), headers)


def _github_token(api: str, post: Callable[..., Answer], repository: str) -> str:
    secret = credential()
    if "token" in secret:
        token = str(secret["token"]).strip()
    elif "private_key" in secret:
        from app import installation_token  # type: ignore[import-not-found]

        try:
            token = installation_token(secret, api, post, repository)
        except ValueError as error:
            raise TriggerError(str(error)) from None
    else:
        raise TriggerError("the credential has neither a token nor a private_key")
    # The error of http.client would show it.
    if not re.fullmatch(r"[!-~]+", token):
        raise TriggerError("the credential's token has characters that no token has")
    return token


def _start_jenkins(where: Repository, run: Run, post: Callable[..., Answer]) -> str:
    """Start the job, in the folders of the plugin GitHub Branch Source: owner, repository, branch.

    Source: https://www.jenkins.io/doc/book/using/remote-access-api/
    """
    server = os.environ.get("JENKINS_URL", "").rstrip("/")
    if not server:
        raise TriggerError("this repository uses Jenkins, but the platform has no JenkinsUrl")
    secret = credential()
    if "jenkins_user" not in secret or "jenkins_token" not in secret:
        raise TriggerError("the credential has no jenkins_user and jenkins_token")
    words = f"{secret['jenkins_user']}:{secret['jenkins_token']}".encode()
    branch = urllib.parse.quote(os.environ.get("REF", "main"), safe="")
    answer = post(
        f"{server}/job/{where.owner}/job/{where.name}/job/{branch}/buildWithParameters",
        urllib.parse.urlencode(run.parameters).encode(),
        {"Authorization": f"Basic {base64.b64encode(words).decode()}"},
    )
    return answer.location if re.fullmatch(r"https?://[!-~]{1,300}", answer.location) else ""


class _OutOfTime(BaseException):
    """Not an Exception, so that no handler on the way catches it."""


@contextlib.contextmanager
def _until(deadline: float) -> Iterator[None]:
    """Raise TriggerError at the deadline, whatever the block waits for.

    The timeout of a socket restarts with each byte, so a slow server could outlast the function.
    """
    # Only there does Python handle signals, and there Lambda calls the handler.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(*_: Any) -> None:
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Then again each second: an exception raised in a finalizer is lost.
        signal.setitimer(signal.ITIMER_REAL, max(deadline - time.monotonic(), 0.001), 1)
        yield
    except _OutOfTime:
        raise TriggerError("the answer was not complete in time") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def credential() -> dict[str, Any]:
    """Return the secret's JSON object: `token`; or `app_id`, `installation_id`, `private_key`; and
    `jenkins_user`, `jenkins_token`. It is read each time: it may have been rotated."""
    name = os.environ["CREDENTIAL_SECRET"]
    text = client("secretsmanager").get_secret_value(SecretId=name).get("SecretString", "")
    # Neither the text nor the parser's error, which quotes it, may reach a log.
    found = _object(text)
    if found is None:
        raise TriggerError(f"secret {name} does not hold a JSON object")
    return found


def _object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object in a text; None if it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


@dataclass(frozen=True)
class Answer:
    """The answer to a request that succeeded. `location` has no credential in it."""

    body: bytes
    location: str


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuse redirects: urllib would send the credential wherever they lead."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _post(
    address: str, body: bytes, headers: dict[str, str], deadline: float, again: bool = True
) -> Answer:
    """Send a request. Follow a short Retry-After and a redirect within the same server once.

    Raise TriggerError naming server, path and status; never the headers, nor what quotes them.
    """
    where = urllib.parse.urlsplit(address)
    hidden = functools.partial(_hidden, authorization=headers["Authorization"])
    place = hidden(f"{where.hostname}{where.path}")
    if where.scheme != "https" and where.hostname != "127.0.0.1":
        raise TriggerError(f"{place}: is not https, so others could read the credential")
    if deadline - time.monotonic() < HTTP_SECONDS:
        raise TriggerError(f"{place}: no time was left to ask it")
    try:
        request = urllib.request.Request(
            address, body, {**headers, "User-Agent": "sm-mlops-trigger"}, method="POST"
        )
        opener = urllib.request.build_opener(_NoRedirects)
        with opener.open(request, timeout=HTTP_SECONDS) as answer:
            location = hidden(answer.headers.get("Location", ""))
            return Answer(_body(answer), location)
    except urllib.error.HTTPError as error:
        wait = error.headers.get("Retry-After", "")
        location = error.headers.get("Location", "")
        message = (_object(_body(error)) or {}).get("message") or error.reason
        said = hidden(str(message))[:200]
        status = error.code
    except (OSError, ValueError, http.client.HTTPException) as error:
        # The messages of urllib and ssl name only hosts and ports; others may quote a header.
        reason = getattr(error, "reason", error if isinstance(error, OSError) else None)
        raise TriggerError(f"{place}: no answer: {reason or type(error).__name__}") from None
    if again and status in (307, 308) and (target := _same_server(address, location)):
        return _post(target, body, headers, deadline, again=False)
    seconds = int(wait) if re.fullmatch("[0-9]{1,9}", wait) else None
    if again and seconds is not None and seconds + HTTP_SECONDS <= deadline - time.monotonic():
        time.sleep(seconds)
        return _post(address, body, headers, deadline, again=False)
    later = f"; try again in {seconds} s" if seconds is not None else ""
    raise TriggerError(f"{place}: {status} {said}{later}{_HINTS.get(status, '')}")


def _body(answer: Any) -> bytes:
    """Return as much of an answer as arrives. Its first line has confirmed the request, which must
    not be repeated because of the rest."""
    try:
        return answer.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException, _OutOfTime):
        return b""


def _hidden(text: str, authorization: str) -> str:
    """Return a server's text on one line, without the credential sent to it."""
    scheme, _, word = authorization.partition(" ")
    words = [word]
    if scheme == "Basic":
        pair = base64.b64decode(word).decode()
        words += [pair, pair.partition(":")[2]]
    for word in filter(None, words):
        text = text.replace(word, "***")
    return " ".join(text.split())


def _same_server(address: str, location: str) -> str:
    """Return the target of a redirect, "" if it is another server."""
    try:
        target = urllib.parse.urljoin(address, location)
        here, there = urllib.parse.urlsplit(address), urllib.parse.urlsplit(target)
    except ValueError:
        return ""
    return target if (here.scheme, here.netloc) == (there.scheme, there.netloc) else ""


_HINTS = {
    401: "; the credential is wrong or has expired",
    403: "; the credential may not start workflows (Actions: write), or the rate limit is reached",
    404: "; the repository or its workflow does not exist, or the credential cannot see it",
    422: "; if the workflow lacks an input, it is of an older template: make upgrade",
}
