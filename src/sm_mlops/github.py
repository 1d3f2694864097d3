"""The GitHub API: signing in, repositories, and errors in one line.

Neither a token nor the body of a request ever reaches output, logs or the text of an exception.
Must not know AWS, nor what the repository is for.
"""

from __future__ import annotations

import logging
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sm_mlops.errors import MlopsError

if TYPE_CHECKING:
    from github.Repository import Repository

GITHUB_COM = "github.com"
# The longest wait that GitHub may ask for; the error for a longer one says until when.
PATIENCE_SECONDS = 30
ATTEMPTS = 4
# Before the third attempt, doubled before each further one; the second comes at once.
BACKOFF_SECONDS = 0.5
REQUEST_SECONDS = 20
# Source: https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps
SCOPES = ("repo", "workflow")
_DEFAULT_CLAIMS = ["repo", "context"]
_INCLUDED = {"admin:org": ("write:org", "read:org"), "write:org": ("read:org",)}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """The URLs of a GitHub server, without a trailing slash."""

    api: str = "https://api.github.com"
    server: str = "https://github.com"


@dataclass(frozen=True)
class Person:
    """The owner of a token; `login` is empty for an App. `scopes` is None for a token that has
    permissions instead."""

    login: str
    number: int
    scopes: frozenset[str] | None


class GitHubError(MlopsError):
    """GitHub refused a request, or did not answer (`status` 0). `said` is GitHub's message."""

    def __init__(self, line: str, status: int = 0, said: str = "") -> None:
        super().__init__(line)
        self.status, self.said = status, said


def place(environment: Mapping[str, str], host: str = GITHUB_COM) -> Place:
    """Return the URLs of the GitHub of this host, or those that GitHub Actions sets.

    Source: https://docs.github.com/en/enterprise-server/rest/quickstart
    """
    known = Place() if host == GITHUB_COM else Place(f"https://{host}/api/v3", f"https://{host}")
    return Place(
        (environment.get("GITHUB_API_URL") or known.api).rstrip("/"),
        (environment.get("GITHUB_SERVER_URL") or known.server).rstrip("/"),
    )


def sign_in(environment: Mapping[str, str], host: str = GITHUB_COM) -> GitHub:
    """Return GitHub with the token from GITHUB_TOKEN, GH_TOKEN or `gh auth login`.

    Sends no request. Raises MlopsError with what a token needs if there is none.
    """
    for name in ("GITHUB_TOKEN", "GH_TOKEN"):
        if token := environment.get(name, "").strip():
            return GitHub(token, name, place(environment, host))
    if token := _token_of_gh(environment, host):
        return GitHub(token, "gh auth login", place(environment, host))
    elsewhere = "" if host == GITHUB_COM else f" --hostname {host}"
    raise MlopsError(
        f"not signed in to GitHub: gh auth login --scopes {','.join(SCOPES)}{elsewhere}, or set "
        f"GITHUB_TOKEN to a token with the scopes {' and '.join(SCOPES)} (classic) or the "
        "permissions Administration, Actions, Contents, Environments, Secrets, Variables and "
        "Workflows, each read and write (fine-grained)"
    )


def _token_of_gh(environment: Mapping[str, str], host: str) -> str:
    if not shutil.which("gh", path=environment.get("PATH")):
        return ""
    done = subprocess.run(
        ["gh", "auth", "token", "--hostname", host],
        # gh keeps its own variables: GH_ENTERPRISE_TOKEN is for GitHub Enterprise Server.
        env={k: v for k, v in environment.items() if not k.startswith("MLOPS_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() if done.returncode == 0 else ""


@contextmanager
def allowing(*statuses: int) -> Iterator[None]:
    """Suppress GitHub's errors of these statuses, as contextlib.suppress does with exceptions."""
    from github import GithubException

    try:
        yield
    except GithubException as error:
        if error.status not in statuses:
            raise


@dataclass
class GitHub:
    """A signed-in GitHub. `origin` is the source of the token."""

    token: str = field(repr=False)
    origin: str
    at: Place = field(default_factory=Place)

    def __post_init__(self) -> None:
        # An error would quote an invalid header.
        if not re.fullmatch(r"[!-~]+", self.token):
            raise MlopsError(f"{self.origin}: a token must be printable ASCII without spaces")

    @cached_property
    def api(self) -> Any:
        """Return PyGithub's client, without its logs."""
        from github import Auth

        # GitHub accepts the JSON web token of an App as a bearer token only.
        is_app = self.token.count(".") == 2
        return _client(Auth.AppAuthToken(self.token) if is_app else Auth.Token(self.token), self.at)

    @cached_property
    def person(self) -> Person:
        """Return the owner of the token. Raises GitHubError."""
        try:
            with self.doing("show the owner of the token"):
                headers, found = self.api.requester.requestJsonAndCheck("GET", "/user")
        except GitHubError as error:
            # The token of an App, such as that of a job of GitHub Actions, belongs to no user.
            if error.status == 403 and "by integration" in error.said:
                return Person("", 0, None)
            raise
        scopes = headers.get("x-oauth-scopes")
        held = None if scopes is None else frozenset(s.strip() for s in scopes.split(",") if s)
        return Person(str(found["login"]), int(found["id"]), held)

    def require(self, *scopes: str) -> None:
        """Raise MlopsError if a classic token lacks scopes, with how to add them."""
        held = self.person.scopes
        if held is None:
            return
        included = {low for top in held for low in _INCLUDED.get(top, ())}
        lacking = [scope for scope in scopes if scope not in held | included]
        if not lacking:
            return
        how = f"add to it at {self.at.server}/settings/tokens"
        if self.origin == "gh auth login":
            how = f"gh auth refresh --scopes {','.join(lacking)}"
        noun = "scope" if len(lacking) == 1 else "scopes"
        raise MlopsError(
            f"the token from {self.origin} lacks the {noun} {' and '.join(lacking)}: {how}"
        )

    def repository(self, name: str) -> Repository | None:
        """Return the repository `owner/name`, under its new name if it has been renamed.

        None if it does not exist or this token cannot see it. Raises GitHubError.
        """
        with self.doing(f"show {name}"), allowing(404):
            return self.api.get_repo(name)
        return None

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request that PyGithub has no method for; return the JSON of the answer.

        Raises PyGithub's errors: call it inside `doing`.
        """
        _, answer = self.api.requester.requestJsonAndCheck(method, path, input=body)
        return answer

    def find(self, path: str) -> Any:
        """Return the JSON at a path, None for status 404; call it inside `doing`."""
        with allowing(404):
            return self.ask("GET", path)
        return None

    @contextmanager
    def doing(self, what: str) -> Iterator[None]:
        """Turn PyGithub's errors into GitHubError; `what` completes "GitHub did not ...".

        Source: https://docs.github.com/en/rest/using-the-rest-api/troubleshooting-the-rest-api
        """
        import requests
        from github import GithubException

        try:
            yield
        except GithubException as error:
            said = _said(error)
            line = f"GitHub did not {what}: {self._why(error, said)}"
            raise GitHubError(line, error.status, said) from error
        except requests.exceptions.RequestException as error:
            host = self.at.api.partition("//")[2].partition("/")[0]
            reason = _reason(error)
            raise GitHubError(
                f"cannot reach GitHub at {host} to {what}: {reason}; run the same command again"
            ) from error

    def _why(self, error: Any, said: str) -> str:
        from github import RateLimitExceededException

        headers = {str(key).lower(): str(value) for key, value in (error.headers or {}).items()}
        status = f"{error.status} {said}"
        if error.status == 429 or isinstance(error, RateLimitExceededException):
            return f"{status}; {_when(headers)}"
        if error.status == 401:
            return (
                f"{status}; the token from {self.origin} is wrong, has expired or was revoked: "
                f"make a new one at {self.at.server}/settings/tokens, or gh auth login"
            )
        if error.status == 403 and "x-github-sso" in headers:
            address = headers["x-github-sso"].partition("url=")[2]
            return f"{status}; authorize the token for the organization's single sign-on: {address}"
        if error.status == 403:
            needed = headers.get("x-accepted-github-permissions")
            right = f"needs {needed}" if needed else "does not allow this, or you may not do it"
            return f"{status}; the token from {self.origin} {right}"
        if error.status == 404:
            return f"{status}; it does not exist, or the token from {self.origin} cannot see it"
        if error.status >= 500:
            return f"{status}; run the same command again"
        return status


def subject(github: GitHub, repository: Repository, needed: bool = True) -> str:
    """Return the repository's prefix in the subject of its OIDC tokens: `repo:my-org@1/churn@2`.

    Empty if GitHub does not return one, which means its name. Raises GitHubError, and MlopsError if
    tokens are `needed` and a template of the repository or its organization changes the rest of
    their subject, which the roles of the workflows compare.

    Source: https://docs.github.com/en/actions/reference/openid-connect-reference#immutable-subject-claims
    """
    with github.doing(f"show the subject of {repository.full_name}'s tokens"):
        found = github.find(f"{repository.url}/actions/oidc/customization/sub") or {}
    # Without the default, what a repository does not name itself is its organization's.
    default = found.get("use_default", True) or found.get("include_claim_keys") == _DEFAULT_CLAIMS
    if needed and not default:
        name = repository.full_name
        raise MlopsError(
            f"the subject of {name}'s tokens is customized, and AWS would let no workflow in: run "
            f"gh api -X PUT repos/{name}/actions/oidc/customization/sub -F use_default=true, then "
            "this command again"
        )
    return str(found.get("sub_claim_prefix") or "")


def _client(auth: Any, at: Place) -> Any:
    from github import Github, RateLimitExceededException
    from github.GithubRetry import GithubRetry
    from github.Requester import Requester

    class Patient(GithubRetry):
        """Log GitHub's Retry-After, and give up if it is long."""

        def increment(self, method: Any = None, url: Any = None, response: Any = None,
                      error: Any = None, *rest: Any, **more: Any) -> Any:  # fmt: skip
            if response is not None and (wait := self.get_retry_after(response)):
                if wait > PATIENCE_SECONDS:
                    said = {"message": f"GitHub asks to wait {wait:.0f} seconds"}
                    raise RateLimitExceededException(response.status, said, dict(response.headers))
                log.warning("GitHub asks to wait %d seconds", wait)
            return super().increment(method, url, response, error, *rest, **more)

    # PyGithub would log headers and bodies.
    silent = logging.getLogger(f"{__name__}.silent")
    silent.disabled = True
    Requester.injectLogger(silent)
    # These would print each retry on standard error.
    for name in ("github.GithubRetry", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return Github(
        auth=auth,
        base_url=at.api,
        timeout=REQUEST_SECONDS,
        user_agent="sm-mlops",
        per_page=100,
        retry=Patient(
            total=ATTEMPTS - 1,
            backoff_factor=BACKOFF_SECONDS,
            secondary_rate_wait=PATIENCE_SECONDS,
            max_rate_limit_wait=PATIENCE_SECONDS,
            raise_on_status=False,
        ),
        # A command sends few requests.
        seconds_between_requests=0,
        seconds_between_writes=0,
    )


def _said(error: Any) -> str:
    """Return GitHub's message, shortened."""
    data = error.data if isinstance(error.data, dict) else {}
    words = [str(data.get("message") or error.message or "no reason given")]
    for each in data.get("errors") or ():
        if isinstance(each, str):
            words.append(each)
        elif isinstance(each, dict):
            words.append(str(each.get("message") or f"{each.get('field')} {each.get('code')}"))
    return " ".join(": ".join(words).split())[:300]


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an error of requests: outer ones name Python objects."""
    while True:
        inner = [getattr(error, "reason", None), *reversed(error.args)]
        found = next((each for each in inner if isinstance(each, BaseException)), None)
        if found is None:
            said = re.sub(r"^HTTPS?Connection(Pool)?\(.*?\): ", "", str(error))
            return " ".join(said.split()).rstrip(".")
        error = found


def _when(headers: Mapping[str, str]) -> str:
    """Return when to try again after a rate limit."""
    now = datetime.now(UTC).timestamp()
    wait, reset = headers.get("retry-after", ""), headers.get("x-ratelimit-reset", "")
    if not wait.isdigit() and not reset.isdigit():
        return "run the same command again in a few minutes"
    until = now + int(wait) if wait.isdigit() else float(reset)
    at = datetime.fromtimestamp(until, UTC).astimezone()
    return f"run the same command again after {at:%H:%M}, in {max(until - now, 0) / 60:.0f} minutes"
