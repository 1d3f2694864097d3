"""`mlops upgrade`, `mlops vendor` and what doctor says, with real repositories and releases."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import sm_mlops
from rendering import Run, run
from repos import make_repo
from sm_mlops import compatibility
from sm_mlops.bootstrap.by_hand import Tool
from sm_mlops.bootstrap.push import Push
from sm_mlops.doctor import parts, tool
from sm_mlops.errors import MlopsError
from sm_mlops.upgrade import pin as pins
from sm_mlops.upgrade import template as templates
from sm_mlops.upgrade import wheel
from template_case import ADDRESS, Published, git

OURS = sm_mlops.version()


class Team:
    """A team that rendered 0.3.0 of a published template; 0.4.0 and 0.5.0 came after."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.home = folder / "home"
        for name in ("home", "tmp", "work"):
            (folder / name).mkdir()
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            "GIT_CONFIG_GLOBAL": str(self.home / ".gitconfig"),
        }
        self.template = Published(folder, template, self.home)
        with (self.home / ".gitconfig").open("a") as file:
            file.write("[user]\n    name = Ada\n    email = ada@example.org\n")
        self.rendered = self.template.release("0.3.0")
        self.work = folder / "work"
        self.repo = self.work / "my-model"

    def render(self, tool: str = "cruft create") -> None:
        done = run(
            *("python -m " + tool + " --no-input " + ADDRESS).split(),
            cwd=self.work,
            **self.environment,
        )
        assert done.code == 0, done.out + done.err
        if "cruft" in tool:
            self.commit("Follow the template")

    def commit(self, message: str) -> None:
        git(self.repo, "add", "--all")
        git(self.repo, "commit", "--quiet", "--message", message)

    def go_on(self) -> str:
        """Release twice. Return the last commit."""
        readme = next(self.template.work.glob("*cookiecutter*/README.md"))
        readme.write_text(readme.read_text() + "\nNews of 0.4.\n")
        self.template.release("0.4.0", "Rename `gate` to `door`.")
        return self.template.release("0.5.0", "Run `make lint`.")

    def mlops(self, *arguments: str) -> Run:
        return run("python", "-m", "sm_mlops", *arguments, cwd=self.repo, **self.environment)

    def pin(self) -> str:
        return (self.repo / "tool.txt").read_text().strip()

    def template_version(self) -> str:
        found = re.search(r'template-version = "(.*)"', (self.repo / "pyproject.toml").read_text())
        assert found
        return found[1]


@pytest.fixture
def team(tmp_path: Path, template: Path) -> Team:
    return Team(tmp_path, template)


@pytest.mark.slow
def test_template_and_tool_move_together_to_the_newest_version(team: Team) -> None:
    team.render()
    assert team.pin().endswith(team.rendered) and team.template_version() == "0.3.0"
    newest = team.go_on()

    done = team.mlops("upgrade")

    assert done.code == 0, done.out + done.err
    assert "Moved template and tool to 0.5.0" in done.out
    assert team.pin() == f"sm-mlops @ git+{ADDRESS}@{newest}"
    assert team.template_version() == "0.5.0"
    assert "News of 0.4." in (team.repo / "README.md").read_text()
    told = done.out[done.out.index("What you still have to do") :]
    assert told.index("Rename `gate`") < told.index("Run `make lint`") and "News." not in told


@pytest.mark.slow
def test_a_named_version_is_used_and_the_second_time_there_is_nothing_to_do(team: Team) -> None:
    team.render()
    team.go_on()
    done = team.mlops("upgrade", "v0.4.0")
    assert done.code == 0 and "to 0.4.0" in done.out and "make lint" not in done.out
    assert team.template_version() == "0.4.0"
    team.commit("Upgrade")
    before = team.pin()
    assert "Nothing to do: this repo is at 0.4.0" in team.mlops("upgrade", "0.4.0").out
    assert team.pin() == before and git(team.repo, "status", "--porcelain") == ""


@pytest.mark.long
@pytest.mark.slow
def test_a_conflict_ends_with_1_and_names_the_file(team: Team) -> None:
    team.render()
    (team.repo / "README.md").write_text((team.repo / "README.md").read_text() + "\nOurs.\n")
    team.commit("Edit")
    team.go_on()
    done = team.mlops("upgrade")
    assert done.code == 1
    assert "Resolve the conflicts in README.md; then make lock setup" in done.out
    assert "<<<<<<<" in (team.repo / "README.md").read_text()


@pytest.mark.long
@pytest.mark.slow
def test_a_repo_that_does_not_follow_gets_the_tool_and_is_told_how_to_follow(team: Team) -> None:
    team.render("cookiecutter")
    newest = team.go_on()
    done = team.mlops("upgrade")
    assert done.code == 0, done.err
    assert "Moved tool to 0.5.0" in done.out and team.pin().endswith(newest)
    [link] = re.findall(r"\.venv/bin/(cruft link .*)", done.out)
    assert link == f"cruft link {ADDRESS} --checkout {team.rendered}"
    team.commit("Upgrade the tool")
    linked = run(*("python", "-m", *link.split(), "--no-input"), cwd=team.repo, **team.environment)
    assert linked.code == 0, linked.out + linked.err
    team.commit("Follow the template")
    assert "Moved template to 0.5.0" in team.mlops("upgrade").out
    assert team.template_version() == "0.5.0"


@pytest.mark.parametrize(
    "line",
    [
        "sm-mlops==*",
        f"sm-mlops==1;evil --hash=sha256:{'0' * 64}",
        "sm-mlops==0.2.0 --hash=md5:0",
        f"./vendor/sm_mlops-../../x-py3-none-any.whl --hash=sha256:{'0' * 64}",
        f"sm-mlops @ git+ext::sh@{'0' * 40}",
        f"sm-mlops @ git+https://host/\x1b[2J@{'0' * 40}",
    ],
)
def test_an_invalid_pin_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / pins.FILE).write_text(line)
    with pytest.raises(MlopsError, match="must be one line such as"):
        pins.read(tmp_path)


def test_a_pin_is_shown_without_user_and_password(tmp_path: Path) -> None:
    pins.write(tmp_path, f"sm-mlops @ git+https://ada:secret@host/o/r@{'0' * 40}")
    assert pins.read(tmp_path).shown == "https://host/o/r at 0000000"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("why", "said"),
    [
        ("uncommitted", "there are uncommitted changes: commit or stash them, then make upgrade"),
        ("unknown", "there is no version 9.9; there are 0.3.0"),
        ("unreachable", "git ls-remote: fatal:"),
        ("nowhere", "this repo does not name its template"),
        ("damaged", "tool.txt: must be one line such as"),
        ("missing", "tool.txt: cannot be read"),
    ],
)
def test_what_stops_an_upgrade_is_one_line_and_nothing_has_moved(
    team: Team, why: str, said: str
) -> None:
    team.render("cookiecutter")
    if why == "uncommitted":
        (team.repo / "notes.md").write_text("Ours.\n")
    elif why == "unreachable":
        shutil.rmtree(team.template.bare)
    elif why == "nowhere":
        (team.repo / "tool.txt").write_text(f"sm-mlops==0.3.0 --hash=sha256:{'0' * 64}\n")
    elif why == "damaged":
        (team.repo / "tool.txt").write_text("sm-mlops\n")
    elif why == "missing":
        (team.repo / "tool.txt").unlink()
    before = git(team.repo, "status", "--porcelain")
    done = team.mlops("upgrade", *(["9.9"] if why == "unknown" else []))
    assert done.code == 2 and done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith(f"mlops: {said}")
    assert git(team.repo, "status", "--porcelain") == before


@pytest.mark.slow
def test_a_pin_that_cannot_move_stops_an_upgrade_before_the_template_has_moved(team: Team) -> None:
    team.render()
    team.go_on()
    archive = f"sm-mlops @ https://host/x.zip --hash=sha256:{'0' * 64}\n"
    (team.repo / "tool.txt").write_text(archive)
    team.commit("An archive")
    done = team.mlops("upgrade")
    assert done.code == 2 and "tool.txt pins an archive: change it to that of v0" in done.err
    assert git(team.repo, "status", "--porcelain") == ""


@pytest.mark.long
@pytest.mark.slow
def test_a_wheel_and_an_index_s_version_move_in_their_own_way(team: Team) -> None:
    team.render()
    team.go_on()
    wheel.vendor(team.repo, team.template.work)
    team.commit("Vendor")
    git(team.template.work, "checkout", "--quiet", "v0.4.0")
    done = team.mlops("upgrade")
    assert done.code == 0, done.err
    assert team.pin().startswith("./vendor/sm_mlops-0.5.0-")
    [file] = (team.repo / "vendor").iterdir()
    assert file.name in team.pin()

    (team.repo / "tool.txt").write_text(f"sm-mlops==0.5.0 --hash=sha256:{'0' * 64}\n")
    team.commit("An index")
    git(team.template.work, "checkout", "--quiet", "main")
    pin = f"sm-mlops==0.6.0 --hash=sha256:{'1' * 64}"
    answers = team.template.work / "cookiecutter.json"
    answers.write_text(answers.read_text().replace('"_tool_pin": ""', f'"_tool_pin": "{pin}"'))
    team.template.release("0.6.0")
    done = team.mlops("upgrade")
    assert done.code == 0, done.err
    assert team.pin() == pin


def test_the_changelogs_versions_in_between_are_listed_oldest_first() -> None:
    changelog = (
        "# C\n\n## 0.10.0\n\nC.\n\n## 0.9.0\n\nNews.\n\n### To do in a repo\n\nB.\n\n"
        "## 0.8.0\n\nA.\n"
    )
    assert templates.steps(changelog, "0.8.0", "0.10.0") == "0.9.0\n\nB.\n\n0.10.0\n\nC."
    assert templates.steps(changelog, "0.10.0", "0.10.0") == ""
    assert templates.steps(changelog, "", "0.8.0") == "0.8.0\n\nA."


def test_our_own_changelog_says_what_to_do_for_each_version() -> None:
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert templates.TO_DO in text
    assert templates.steps(text, "0.1.0", OURS).startswith(OURS)


def test_a_repo_from_a_template_that_is_too_old_is_refused_in_one_line() -> None:
    with pytest.raises(MlopsError, match=rf"from template 0\.1\.0, and sm-mlops {OURS} needs"):
        compatibility.require_supported("0.1.0")
    with pytest.raises(MlopsError, match="from template unknown"):
        compatibility.require_supported("")
    compatibility.require_supported(compatibility.OLDEST_TEMPLATE)
    compatibility.require_supported("0.10.0")


# The wheel.


@pytest.fixture(scope="session")
def built(template: Path) -> tuple[str, dict[str, bytes]]:
    return wheel.from_source(template)


@pytest.mark.slow
def test_the_wheel_holds_what_hatchling_would_put_there(
    template: Path, built: tuple[str, dict[str, bytes]], tmp_path: Path
) -> None:
    done = run("python", "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=template)
    assert done.code == 0, done.err
    [file] = tmp_path.glob("*.whl")
    theirs = zipfile.ZipFile(file)
    version, ours = built
    added = {f"sm_mlops-{version}.dist-info/{name}" for name in ("RECORD", "WHEEL")}
    assert {*theirs.namelist()} - added == {*ours}
    for name in ours:
        assert theirs.read(name) == ours[name], name


def test_the_wheel_holds_the_data_that_the_tool_reads(built: tuple[str, dict[str, bytes]]) -> None:
    names = {*built[1]}
    assert {"sm_mlops/py.typed", "sm_mlops/platform/platform.yml"} <= names
    assert "sm_mlops/platform/trigger/requirements.lock" in names
    assert not any("__pycache__" in name for name in names)


def environment(folder: Path) -> Path:
    """An interpreter without our tool, but with what builds it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    [site] = (folder / "lib").glob("python*/site-packages")
    import hatchling
    import packaging
    import pathspec
    import pluggy
    import trove_classifiers

    for module in (hatchling, packaging, pathspec, pluggy, trove_classifiers):
        source = Path(str(module.__file__)).parent
        (site / source.name).symlink_to(source)
    return python


def install(python: Path, repo: Path, **environment: str) -> Run:
    """The last step of `make setup`, without a network."""
    return run(
        *("python", "-m", "uv", "pip", "install", "--quiet", "--offline", "--python", python),
        *("--no-deps", "--no-build-isolation", "--requirements", "tool.txt"),
        cwd=repo,
        **environment,
    )


def version_of(python: Path) -> str:
    """The version that runs there, away from this repository."""
    code = "import sm_mlops; print(sm_mlops.version())"
    done = run(python, "-I", "-c", code, cwd=python.parent)
    assert done.code == 0, done.err
    return done.out.strip()


@pytest.mark.slow
def test_what_is_pinned_can_be_installed_and_what_was_changed_cannot(
    team: Team, tmp_path: Path
) -> None:
    team.render()
    cache = {"UV_CACHE_DIR": str(tmp_path / "cache"), **team.environment}
    python = environment(tmp_path / "of git")
    done = install(python, team.repo, **cache)
    assert done.code == 0, done.err
    assert version_of(python) == "0.3.0"

    # `mlops vendor` makes of what is installed the wheel that its source makes.
    code = "import pathlib; from sm_mlops.upgrade import wheel; wheel.vendor(pathlib.Path())"
    done = run(python, "-c", code, cwd=team.repo)
    assert done.code == 0, done.err
    from_installation = team.pin()
    git(team.template.work, "checkout", "--quiet", "v0.3.0")
    wheel.vendor(team.repo, team.template.work)
    assert team.pin() == from_installation and "0.3.0" in from_installation

    python = environment(tmp_path / "of the wheel")
    assert install(python, team.repo, **cache).code == 0
    assert version_of(python) == "0.3.0"
    [file] = (team.repo / "vendor").iterdir()
    version, files = wheel.from_source(team.template.work)
    file.write_bytes(wheel.pack(version, files | {"sm_mlops/theirs.py": b"THEIRS = 1\n"}))
    refused = install(environment(tmp_path / "refused"), team.repo, **cache)
    assert refused.code != 0 and "Hash mismatch" in refused.err


# Doctor.


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Any]:
    settings = make_repo(tmp_path / "repo").settings()
    (settings.root / "tool.txt").write_text(f"sm-mlops @ git+{ADDRESS}@{'a' * 40}\n")
    yield SimpleNamespace(aws=SimpleNamespace(settings=settings), hub=None)


def released(monkeypatch: pytest.MonkeyPatch, *versions: str) -> None:
    found = [templates.Release(version, f"v{version}", "b" * 40) for version in versions]
    monkeypatch.setattr(templates, "releases", lambda *_: found)


def test_doctor_says_when_a_newer_version_is_available(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(monkeypatch, "0.1.0", "99.0.0")
    last = [*tool.version(scene)][-1]
    assert (str(last.state), last.detail) == ("warning", "99.0.0 is available")
    assert last.remedy == "make upgrade"


def test_doctor_says_nothing_about_older_versions(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(monkeypatch, "0.1.0")
    assert not any("is available" in finding.detail for finding in tool.version(scene))


def test_doctor_says_when_the_installed_tool_is_not_the_pinned_one(
    scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(monkeypatch)
    monkeypatch.setattr(pins, "mismatch", lambda _: "0.1.0 at bbbbbbb")
    first = next(tool.version(scene))
    assert first.detail == f"0.1.0 at bbbbbbb is installed, but tool.txt pins {ADDRESS} at aaaaaaa"
    assert first.remedy == "make setup"


def test_doctor_continues_without_a_network(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object) -> None:
        raise MlopsError("git ls-remote: fatal: no route")

    monkeypatch.setattr(templates, "releases", unreachable)
    last = [*tool.version(scene)][-1]
    assert str(last.state) == "warning" and "could not look for newer versions" in last.detail


def test_doctor_says_nothing_about_a_repo_without_a_pin(scene: Any) -> None:
    (scene.aws.settings.root / "tool.txt").unlink()
    scene.hub = SimpleNamespace()
    assert [*tool.version(scene), *parts.tool(scene)] == []


@pytest.mark.parametrize(
    ("line", "private", "said"),
    [
        (f"git+{ADDRESS}.git", True, "acme/sm-mlops is private"),
        (f"git+{ADDRESS}", False, ""),
        ("git+ssh://git@github.com/acme/sm-mlops", False, "github.com is reached over SSH"),
        ("git+https://gitlab.com/acme/sm-mlops", True, ""),
    ],
)
def test_doctor_and_bootstrap_say_when_workflows_cannot_get_the_tool(
    scene: Any, line: str, private: bool, said: str
) -> None:
    (scene.aws.settings.root / "tool.txt").write_text(f"sm-mlops @ {line}@{'a' * 40}\n")
    scene.hub = SimpleNamespace(repository=lambda name: SimpleNamespace(private=private))
    found = [*parts.tool(scene)]
    assert [said in finding.detail for finding in found] == ([True] if said else [])
    assert all(finding.remedy.startswith("mlops vendor") for finding in found)
    tool = Tool(scene.aws.settings, scene.hub)
    # Pushed, main would start a workflow that cannot be set up.
    pushed = Push(scene.aws.settings, scene.hub)._problem()
    assert (said in pushed[0] and pushed[1] == "") if said and pushed else not said
    planned = tool.look()
    assert [f"{item.what}: {item.detail}" for item in planned] == [
        finding.detail for finding in found
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["--version"])
def test_the_command_prints_its_version_outside_any_repo(tmp_path: Path, name: str) -> None:
    done = run("python", "-m", "sm_mlops", name, cwd=tmp_path)
    assert (done.code, done.out.strip()) == (0, OURS)
    answers = Path(__file__).parents[2] / "cookiecutter.json"
    assert json.loads(answers.read_text())["_template_version"] == OURS


def test_a_bundle_without_metadata_still_imports_the_package(tmp_path: Path) -> None:
    (tmp_path / "sm_mlops").mkdir()
    shutil.copy(Path(str(sm_mlops.__file__)), tmp_path / "sm_mlops")
    done = run(
        sys.executable,
        "-I",
        "-S",
        "-c",
        "import sys; sys.path[:0] = ['.']; import sm_mlops",
        cwd=tmp_path,
    )
    assert done.code == 0, done.err


@pytest.mark.slow
def test_vendor_pins_the_tool_that_is_installed(tmp_path: Path) -> None:
    repo = make_repo(tmp_path / "repo").root
    (repo / "tool.txt").write_text(f"sm-mlops @ git+{ADDRESS}@{'a' * 40}\n")
    (repo / "vendor").mkdir()
    (repo / "vendor" / "sm_mlops-0.0.1-py3-none-any.whl").write_bytes(b"")
    done = run("python", "-m", "sm_mlops", "vendor", cwd=repo)
    assert done.code == 0, done.err
    [file] = (repo / "vendor").iterdir()
    assert file.name in done.out and pins.read(repo).vendored and pins.read(repo).version == OURS


def test_an_installed_commit_that_is_not_the_pinned_one_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    origin = json.dumps({"url": ADDRESS, "vcs_info": {"vcs": "git", "commit_id": "b" * 40}})
    installed = SimpleNamespace(read_text=lambda _: origin, version=OURS)
    monkeypatch.setattr(pins.importlib.metadata, "distribution", lambda _: installed)
    assert pins.mismatch(pins.Pin("", ADDRESS, "b" * 40)) == ""
    assert pins.mismatch(pins.Pin("", ADDRESS, "a" * 40)) == f"{OURS} at bbbbbbb"


def test_an_address_is_never_an_option_of_git(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "remote", "add", "origin", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MlopsError, match="git ls-remote"):
        templates.releases(f"--upload-pack=touch${{IFS}}{seen};git-upload-pack")
    assert not seen.exists()
