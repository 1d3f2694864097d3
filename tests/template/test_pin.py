"""tool.txt: where a rendered repo gets the tool from, whatever it was rendered from."""

import hashlib
import json
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rendering import Run, run
from template_case import ADDRESS, Published, git

pytestmark = pytest.mark.slow
WHEEL = r"\./vendor/sm_mlops-[\d.]+-py3-none-any\.whl --hash=sha256:[0-9a-f]{64}\n"
TOKEN = "ghp_0123456789abcdefghijklmnopqrstuvwxyz"


class Home:
    """A user outside the temp folder, with an empty home."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.work = folder, folder / "home", folder / "work"
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()

    def run(self, *command: str | Path, cwd: Path | None = None, **environment: str) -> Run:
        places = {"HOME": str(self.home), "TMPDIR": str(self.folder / "tmp")}
        return run(*command, cwd=cwd or self.work, **places, **environment)

    def render(self, template: str | Path, *options: str, cwd: Path | None = None) -> Path:
        command = ("python", "-m", "cookiecutter", "--no-input", *options, str(template))
        done = self.run(*command, cwd=cwd)
        assert done.code == 0, done.err
        return (cwd or self.work) / "my-model"

    def cruft(self, template: str | Path) -> Path:
        done = self.run("python", "-m", "cruft", "create", "--no-input", str(template))
        assert done.code == 0, done.out + done.err
        return self.work / "my-model"


@pytest.fixture
def user(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def published(user: Home, template: Path) -> Published:
    return Published(user.folder, template, user.home)


def pin(repo: Path) -> str:
    text = (repo / "tool.txt").read_text()
    assert text.count("\n") == 1 and text.endswith("\n")
    # The first commit holds it.
    assert git(repo, "show", "HEAD:tool.txt") == text.strip()
    return text


def to(published: Published, address: str = ADDRESS) -> str:
    return f"sm-mlops @ git+{address}@{git(published.bare, 'rev-parse', 'main')}\n"


def test_an_address_is_pinned_at_the_commit_that_was_rendered(
    user: Home, published: Published
) -> None:
    repo = user.render(ADDRESS)
    assert pin(repo) == to(published)
    assert not (repo / "vendor").exists()


@pytest.mark.long
def test_an_older_tag_is_pinned_at_its_commit(user: Home, published: Published) -> None:
    older = published.publish("Older", "v0.1.9")
    published.publish("Newer")
    assert pin(user.render(ADDRESS, "--checkout", "v0.1.9")).endswith(f"@{older}\n")


@pytest.mark.parametrize("typed", ["gh:acme/sm-mlops", "corp:sm-mlops"])
def test_an_abbreviation_is_pinned_as_the_address_it_stands_for(
    user: Home, published: Published, typed: str
) -> None:
    config = 'abbreviations:\n  corp: "https://github.com/acme/{0}"\n'
    (user.home / ".cookiecutterrc").write_text(config)
    published.answer(user.home, f"{ADDRESS}.git")
    assert pin(user.render(typed)).replace(".git@", "@") == to(published)


@pytest.mark.parametrize(
    ("typed", "pinned"),
    [
        (f"https://ada:{TOKEN}@github.com/acme/sm-mlops", ADDRESS),
        (f"https://{TOKEN}@github.com/acme/sm-mlops.git", f"{ADDRESS}.git"),
        (f"git+https://oauth2:{TOKEN}@github.com/acme/sm-mlops", ADDRESS),
        (
            "git@github.com:acme/sm-mlops.git",
            "ssh://git@github.com/acme/sm-mlops.git",
        ),
        (
            f"ssh://git:{TOKEN}@github.com:22/acme/sm-mlops.git",
            "ssh://git@github.com:22/acme/sm-mlops.git",
        ),
    ],
)
def test_a_user_and_a_token_in_the_address_reach_no_file(
    user: Home, published: Published, typed: str, pinned: str
) -> None:
    published.answer(user.home, typed.removeprefix("git+"))
    repo = user.render(typed)
    assert pin(repo) == to(published, pinned)
    for file in repo.rglob("*"):
        assert not file.is_file() or TOKEN.encode() not in file.read_bytes(), file
    assert TOKEN not in git(repo, "config", "--list")


def test_a_folder_whose_head_is_pushed_is_pinned_at_its_origin(
    user: Home, published: Published
) -> None:
    git(published.work, "remote", "set-url", "origin", f"https://ada:{TOKEN}@github.com/acme/x.git")
    assert pin(user.render(published.work)) == to(published, "https://github.com/acme/x.git")


@pytest.mark.long
def test_a_folder_named_by_a_relative_path_is_found(user: Home, published: Published) -> None:
    git(published.work, "remote", "set-url", "origin", ADDRESS)
    (user.work / "sub").mkdir()
    relative = os.path.relpath(published.work, user.work)
    assert pin(user.render(relative)) == to(published)
    user.run("python", "-m", "cookiecutter", "--no-input", "-o", "sub", relative)
    assert pin(user.work / "sub" / "my-model") == to(published)


@pytest.mark.parametrize("why", ["not pushed", "changed", "no origin", "an origin on this machine"])
def test_a_folder_that_no_one_else_has_becomes_a_wheel(
    user: Home, published: Published, why: str
) -> None:
    if why != "an origin on this machine":
        git(published.work, "remote", "set-url", "origin", ADDRESS)
    if why == "not pushed":
        git(published.work, "commit", "--quiet", "--allow-empty", "--message", "Ours")
    elif why == "changed":
        (published.work / "src" / "sm_mlops" / "ours.py").write_text("OURS = 1\n")
    elif why == "no origin":
        git(published.work, "remote", "remove", "origin")
    repo = user.render(published.work)
    assert_vendored(repo)
    if why == "changed":
        [wheel] = (repo / "vendor").iterdir()
        assert "sm_mlops/ours.py" in zipfile.ZipFile(wheel).namelist()


def assert_vendored(repo: Path) -> None:
    """A wheel under its hash, and no place of this machine in any file."""
    assert re.fullmatch(WHEEL, pin(repo))
    [wheel] = (repo / "vendor").iterdir()
    assert hashlib.sha256(wheel.read_bytes()).hexdigest() in (repo / "tool.txt").read_text()
    here = str(repo.parents[1]).encode()
    for file in repo.rglob("*"):
        assert not file.is_file() or here not in file.read_bytes(), file


def test_a_plain_folder_becomes_a_wheel_the_same_each_time(user: Home, template: Path) -> None:
    repo = user.render(template)
    assert_vendored(repo)
    first = (repo / "tool.txt").read_text()
    (user.folder / "again").mkdir()
    again = user.render(template, "--output-dir", str(user.folder / "again"))
    assert again == repo
    assert (user.folder / "again" / "my-model" / "tool.txt").read_text() == first
    assert not list(template.rglob("__pycache__"))


def test_an_address_of_this_machine_becomes_a_wheel(user: Home, published: Published) -> None:
    assert_vendored(user.render(published.bare.as_uri()))


def test_with_an_older_python_the_wheel_is_built_by_one_that_the_repo_needs_anyway(
    tmp_path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hooks import post_gen_project as hook

    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3.12").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "version_info", (3, 9, 2))
    monkeypatch.chdir(tmp_path)
    hook.vendor(str(template))
    assert re.fullmatch(WHEEL, (tmp_path / "tool.txt").read_text())


def test_what_cannot_be_pinned_is_reported_and_the_repo_is_still_rendered(
    user: Home, template: Path
) -> None:
    broken = user.folder / "broken"
    shutil.copytree(template, broken)
    (broken / "pyproject.toml").write_text("[project\n")
    done = user.run("python", "-m", "cookiecutter", "--no-input", str(broken))
    assert done.code == 0, done.err
    [line] = [line for line in done.out.splitlines() if line.startswith("tool.txt could not")]
    assert "TOMLDecodeError" in line
    assert (user.work / "my-model" / "README.md").exists()
    # What a repo had before stays.
    pin = user.work / "my-model" / "tool.txt"
    pin.write_text("kept\n")
    command = ("python", "-m", "cookiecutter", "--no-input", "--overwrite-if-exists", str(broken))
    assert "tool.txt could not" in user.run(*command).out
    assert pin.read_text() == "kept\n"


def test_a_fork_s_own_pin_is_written_as_it_is(user: Home, template: Path) -> None:
    fork = user.folder / "fork"
    shutil.copytree(template, fork)
    answers = json.loads((fork / "cookiecutter.json").read_text())
    answers["_tool_pin"] = f"sm-mlops==0.2.0 --hash=sha256:{'0' * 64}"
    (fork / "cookiecutter.json").write_text(json.dumps(answers))
    repo = user.render(fork)
    assert pin(repo) == answers["_tool_pin"] + "\n"
    assert not (repo / "vendor").exists()


@pytest.fixture
def site(user: Home) -> Iterator[Callable[[Path, str], str]]:
    """Serves a file under a path on loopback. Returns its address."""
    served = user.folder / "site"

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: object) -> None:
            super().__init__(*arguments, directory=str(served))  # type: ignore[arg-type]

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()

    def serve(file: Path, path: str) -> str:
        (served / path).parent.mkdir(parents=True)
        shutil.copy(file, served / path)
        return f"127.0.0.1:{server.server_port}/{path}"

    yield serve
    server.shutdown()
    server.server_close()


def test_a_zip_is_pinned_by_its_hash_without_its_password(
    user: Home, published: Published, site: Callable[[Path, str], str]
) -> None:
    archive = user.folder / "sm-mlops-1.zip"
    git(published.work, "archive", "--prefix=sm-mlops-1/", f"--output={archive}", "HEAD:")
    place = site(archive, "releases/sm-mlops-1.zip")
    repo = user.render(f"http://ada:{TOKEN}@{place}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert pin(repo) == f"sm-mlops @ http://{place} --hash=sha256:{digest}\n"
    assert not any(TOKEN.encode() in f.read_bytes() for f in repo.rglob("*") if f.is_file())


def test_the_archive_of_a_commit_is_pinned_at_that_commit(
    user: Home, published: Published, site: Callable[[Path, str], str]
) -> None:
    """A branch's archive is another file tomorrow; git ends it with the commit it is made of."""
    archive = user.folder / "main.zip"
    git(published.work, "archive", "--prefix=sm-mlops-main/", f"--output={archive}", "HEAD")
    place = site(archive, "acme/sm-mlops/archive/main.zip")
    repo = user.render(f"http://{place}")
    assert pin(repo) == to(published, f"http://{place.removesuffix('/archive/main.zip')}")


@pytest.mark.long
def test_a_zip_of_this_machine_becomes_a_wheel(user: Home, published: Published) -> None:
    archive = user.folder / "local.zip"
    git(published.work, "archive", "--prefix=sm-mlops/", f"--output={archive}", "HEAD")
    assert_vendored(user.render(archive))


def test_cruft_pins_the_address_at_its_commit(user: Home, published: Published) -> None:
    repo = user.cruft(ADDRESS)
    assert pin(repo) == to(published)
    assert json.loads((repo / ".cruft.json").read_text())["commit"] in pin(repo)


def test_cruft_refuses_an_address_that_it_would_write_with_its_token(
    user: Home, published: Published
) -> None:
    address = f"https://ada:{TOKEN}@github.com/acme/sm-mlops"
    published.answer(user.home, address)
    done = user.run("python", "-m", "cruft", "create", "--no-input", address)
    assert done.code != 0 and "give the address without" in done.out + done.err
    assert not list(user.work.iterdir())


@pytest.mark.long
def test_cruft_from_a_pushed_folder_pins_its_origin(user: Home, published: Published) -> None:
    git(published.work, "remote", "set-url", "origin", ADDRESS)
    assert pin(user.cruft(published.work)) == to(published)


def test_cruft_from_a_local_folder_makes_a_wheel_of_its_commit(
    user: Home, published: Published
) -> None:
    (published.work / "src" / "sm_mlops" / "not_committed.py").write_text("OURS = 1\n")
    repo = user.cruft(published.work)
    assert re.fullmatch(WHEEL, pin(repo))
    [wheel] = (repo / "vendor").iterdir()
    if sys.platform == "linux":
        assert "sm_mlops/not_committed.py" not in zipfile.ZipFile(wheel).namelist()


@pytest.mark.long
def test_a_cruft_update_leaves_pin_and_lock_to_make_upgrade(
    user: Home, published: Published
) -> None:
    repo = user.cruft(ADDRESS)
    git(repo, "add", "--all")
    git(repo, "commit", "--quiet", "--message", "Follow the template")
    before = pin(repo)
    readme = next(published.work.glob("*cookiecutter*/README.md"))
    readme.write_text(readme.read_text() + "\nNews.\n")
    lock = readme.parent / "requirements.lock"
    lock.write_text(lock.read_text() + "zzz==1 --hash=sha256:0\n")
    published.publish("Next")
    done = user.run("python", "-m", "cruft", "update", "--skip-apply-ask", cwd=repo)
    assert done.code == 0, done.out + done.err
    assert "News." in (repo / "README.md").read_text()
    assert (repo / "tool.txt").read_text() == before and "zzz" not in lock_of(repo)
    assert user.run("python", "-m", "cruft", "diff", "--exit-code", cwd=repo).code == 0


def lock_of(repo: Path) -> str:
    return (repo / "requirements.lock").read_text()


@pytest.mark.parametrize(
    "address",
    [
        "",
        "/srv/git/sm-mlops",
        "../sm-mlops",
        Path("/srv/git/sm-mlops").as_uri(),
        "C:\\templates\\sm-mlops",
        "https://github.com/acme/two words",
        "https://github.com",
        "hg+https://example.org/x",
        f"https://ada:{TOKEN}/x@host/o/r.git",
        f"gh:ada:{TOKEN}@acme/sm-mlops",
        f"https://host:{TOKEN}/o/r",
    ],
)
def test_an_address_that_others_cannot_use_is_dropped(address: str) -> None:
    from hooks import post_gen_project as hook

    assert hook.bare(address) == ""


@pytest.mark.parametrize(
    ("address", "known"),
    [
        (f"https://a@b.org:{TOKEN}@host/o/r.git?private_token={TOKEN}#x", "https://host/o/r.git"),
        (f"https://host/o/r.git;token={TOKEN}", "https://host/o/r.git"),
        ("http://host:8080/o/r/", "http://host:8080/o/r"),
        ("https://[::1]:8443/o/r", "https://[::1]:8443/o/r"),
        ("gl:o/r", "https://gitlab.com/o/r"),
        ("bb:o/r", "https://bitbucket.org/o/r"),
        ("me@host.example:group/sub/r.git", "ssh://me@host.example/group/sub/r.git"),
    ],
)
def test_an_address_is_reduced_to_what_others_need(address: str, known: str) -> None:
    from hooks import post_gen_project as hook

    assert hook.bare(address) == known
