"""The comment on a pull request, against a server that answers as GitHub's API does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

import github_description
from repos import Repo, mlops
from sm_mlops.errors import MlopsError
from sm_mlops.training import comment

pytestmark = pytest.mark.slow

REPOSITORY = "acme/churn"
PAGE = 2


@dataclass
class Api:
    """GitHub as far as comments go: pages of two, newest last."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    refuse: int = 0
    token: str = ""

    def add(self, body: str, kind: str = "User") -> None:
        number = len(self.comments) + 1
        self.comments.append(
            {
                "id": number,
                "body": body,
                "user": {"login": "someone", "type": kind},
                "url": f"{self.url}/repos/{REPOSITORY}/issues/comments/{number}",
                "html_url": f"https://github.com/{REPOSITORY}/pull/7#issuecomment-{number}",
            }
        )

    def answer(self, method: str, path: str, sent: dict[str, Any]) -> tuple[int, Any, str]:
        """Return status, content and Link header."""
        self.requests.append((method, path))
        if self.refuse:
            return self.refuse, {"message": "Resource not accessible by integration"}, ""
        issue = f"/repos/{REPOSITORY}/issues/7"
        if method == "GET" and path.startswith(f"{issue}/comments"):
            page = int(parse_qs(urlsplit(path).query).get("page", ["1"])[0])
            shown = self.comments[(page - 1) * PAGE : page * PAGE]
            more = page * PAGE < len(self.comments)
            link = f'<{self.url}{issue}/comments?page={page + 1}>; rel="next"' if more else ""
            return 200, shown, link
        if (method, path) == ("POST", f"{issue}/comments"):
            self.add(sent["body"], "Bot")
            return 201, self.comments[-1], ""
        number = int(path.rpartition("/")[2])
        assert (method, path) == ("PATCH", f"/repos/{REPOSITORY}/issues/comments/{number}")
        self.comments[number - 1]["body"] = sent["body"]
        return 200, self.comments[number - 1], ""


@pytest.fixture
def api(github_as_described: list[str]) -> Iterator[Api]:
    api = Api()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            api.token = self.headers.get("Authorization", "")
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = json.loads(sent) if sent else {}
            status, content, link = api.answer(self.command, self.path, given)
            exchange = (self.command, self.path, given)
            wrong = github_description.wrong(*exchange, status, content)
            github_as_described.extend(wrong or github_description.asked(*exchange))
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if link:
                self.send_header("Link", link)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PATCH = handle_any

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield api
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def job(api: Api, tmp_path: Path) -> dict[str, str]:
    """Return the variables of a job that runs for pull request 7."""
    return {
        "GITHUB_REPOSITORY": REPOSITORY,
        "GITHUB_EVENT_PATH": str(event(tmp_path, REPOSITORY)),
        "GITHUB_API_URL": api.url,
        "GITHUB_TOKEN": "t0ken",
    }


def event(folder: Path, head: str | None, **more: object) -> Path:
    file = folder / "event.json"
    repo = {"full_name": head} if head else None
    content = {"pull_request": {"number": 7, "head": {"repo": repo}}} | more
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def post(text: str, job: dict[str, str]) -> str:
    return comment.post(text, comment.place(job), "churn", job)


def test_the_first_report_is_a_new_comment(api: Api, job: dict[str, str]) -> None:
    assert post("# fine", job).endswith("/pull/7#issuecomment-1")
    [made] = api.comments
    assert made["body"].endswith("\n# fine")
    assert api.token.endswith("t0ken")


def test_a_comment_that_github_s_description_does_not_know_is_noticed(
    api: Api,
    job: dict[str, str],
    github_as_described: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = json.dumps
    monkeypatch.setattr(
        json, "dumps", lambda value, **how: written(value, **how).replace("# fine", '", "x": "')
    )
    post("# fine", job)
    found, github_as_described[:] = [*github_as_described], []
    assert any("'x' was unexpected" in one for one in found)


def test_later_reports_replace_it_wherever_it_is(api: Api, job: dict[str, str]) -> None:
    for body in ("first!", "", "hello", "> <!-- mlops review of churn -->\n> quoted", "me too"):
        api.add(body)
    post("# red", job)
    api.add("thanks")
    before = [item["body"] for item in api.comments]
    post("# green", job)
    after = [item["body"] for item in api.comments]
    assert len(after) == len(before)
    assert [new for old, new in zip(before, after, strict=True) if old != new] == [
        before[5].replace("# red", "# green")
    ]


def test_the_report_that_a_person_has_written_is_left_alone(api: Api, job: dict[str, str]) -> None:
    """Its author could change it later."""
    api.add("<!-- mlops review of churn -->\n# green")
    assert post("# red", job).endswith("-2")
    assert post("# redder", job).endswith("-2")
    assert api.comments[0]["body"].endswith("# green")


def test_two_projects_in_one_repository_have_a_comment_each(api: Api, job: dict[str, str]) -> None:
    at = comment.place(job)
    for project in ("churn", "fraud", "churn"):
        comment.post(f"{project}!", at, project, job)
    assert [item["body"].rpartition("\n")[2] for item in api.comments] == ["churn!", "fraud!"]


def test_a_report_longer_than_github_accepts_is_cut(api: Api, job: dict[str, str]) -> None:
    post("# fine\n" + "é line\n" * 20_000, job)
    [made] = api.comments
    assert made["body"].count("é") > 1000
    assert len(made["body"]) <= 65_536


def test_a_pull_request_from_a_fork_gets_no_comment_and_no_error(
    api: Api, job: dict[str, str], tmp_path: Path, repo: Repo
) -> None:
    (tmp_path / "review.md").write_text("# fine")
    for head in ("somebody/churn", None):
        job["GITHUB_EVENT_PATH"] = str(event(tmp_path, head))
        done = mlops(repo.root, "comment", "--file", str(tmp_path / "review.md"), **job)
        assert done.returncode == 0, done.stderr
        assert "see the summary" in done.stdout
    assert not api.requests


def test_the_command_posts_the_file(
    api: Api, job: dict[str, str], tmp_path: Path, repo: Repo
) -> None:
    (tmp_path / "review.md").write_text("# fein ✅", encoding="utf-8")
    done = mlops(repo.root, "comment", "--file", str(tmp_path / "review.md"), **job)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "https://github.com/acme/churn/pull/7#issuecomment-1\n"
    assert api.comments[0]["body"] == "<!-- mlops review of churn -->\n# fein ✅"


@pytest.mark.parametrize(
    ("status", "said"),
    [(403, "pull-requests: write"), (401, "is wrong, has expired"), (404, "cannot see it")],
)
def test_what_github_refuses_is_one_line_with_a_remedy(
    api: Api, job: dict[str, str], status: int, said: str
) -> None:
    api.refuse = status
    with pytest.raises(MlopsError, match=said) as caught:
        post("# fine", job)
    assert "\n" not in str(caught.value)
    assert "t0ken" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"GITHUB_REPOSITORY": ""}, "works in GitHub Actions"),
        ({"GITHUB_EVENT_PATH": "/nowhere"}, "cannot read /nowhere"),
        ({"GITHUB_TOKEN": ""}, "GITHUB_TOKEN is not set"),
    ],
)
def test_outside_of_its_job_it_says_what_is_missing(
    job: dict[str, str], change: dict[str, str], said: str
) -> None:
    with pytest.raises(MlopsError, match=said):
        post("# fine", job | change)


def test_a_job_without_a_pull_request_fails_in_one_line(
    job: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "push.json"
    file.write_text('{"after": "abc"}')
    with pytest.raises(MlopsError, match="does not run for a pull request"):
        comment.place(job | {"GITHUB_EVENT_PATH": str(file)})


def test_a_missing_report_is_one_line(repo: Repo) -> None:
    done = mlops(repo.root, "comment", "--file", "nowhere.md")
    assert done.returncode == 2
    assert done.stderr.startswith("mlops: --file nowhere.md: cannot read it")
    assert done.stderr.count("\n") == 1
