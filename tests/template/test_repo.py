"""The template repo agrees with itself: locks, versions, generated parts, CI."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import sm_mlops
from generated import (
    README,
    RENDERED,
    clean_copy,
    default_answers,
    locked,
    with_questions,
)
from image_packages import CONTAINER
from rendering import ROOT, Rendered, run

LOCKS = [ROOT / "requirements.lock", RENDERED / "requirements.lock"]
LAYER = ROOT / "src" / "sm_mlops" / "platform" / "trigger" / "requirements.lock"


def texts(folder: Path) -> dict[str, str]:
    """Every text file below a folder, by relative path."""
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".png")
    return {file.relative_to(folder).as_posix(): file.read_text("utf-8") for file in files}


def test_the_table_of_questions_is_up_to_date() -> None:
    readme = README.read_text(encoding="utf-8")
    assert "| `aws_region` |" in readme
    assert with_questions(readme, default_answers()) == readme, "run: make generate"


def test_the_versions_agree() -> None:
    version = default_answers()["_template_version"]
    assert sm_mlops.version() == version
    newest = re.search(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest and newest[1] == version


def test_a_rendered_repo_says_which_version_of_the_template_it_is(default: Rendered) -> None:
    mlops = tomllib.loads(default.text("pyproject.toml"))["tool"]["mlops"]
    assert mlops["template-version"] == default_answers()["_template_version"]


@pytest.mark.parametrize("lock", [*LOCKS, LAYER], ids=["template", "rendered", "layer"])
def test_every_pin_has_hashes(lock: Path) -> None:
    blocks = re.split(r"\n(?=[a-z0-9])", lock.read_text().strip())
    assert len(blocks) >= len(locked(lock)) > (3 if lock == LAYER else 100)
    assert all("--hash=sha256:" in block for block in blocks)


@pytest.mark.parametrize("lock", [*LOCKS, LAYER], ids=["template", "rendered", "layer"])
def test_a_lock_names_no_place_to_download_from(lock: Path) -> None:
    assert not re.search(r"//|@|index|find-links|#", lock.read_text())


@pytest.mark.parametrize("lock", LOCKS, ids=["template", "rendered"])
def test_a_lock_holds_the_versions_of_the_container(lock: Path) -> None:
    pins = locked(lock)
    assert {name: pins.get(name) for name in CONTAINER} == CONTAINER


def test_one_environment_serves_the_template_and_what_it_renders() -> None:
    ours, rendered = (locked(lock) for lock in LOCKS)
    assert {name: ours.get(name) for name in rendered} == rendered


def test_the_sandbox_runs_the_trigger_with_the_packages_of_its_layer() -> None:
    ours, layer = locked(RENDERED / "requirements.lock"), locked(LAYER)
    assert {name: ours.get(name) for name in layer} == layer
    assert {"pyjwt", "cryptography"} <= {*layer}


def test_the_lock_satisfies_the_rendered_repo_s_dependencies(default: Rendered) -> None:
    from packaging.requirements import Requirement

    table = tomllib.loads(default.text("pyproject.toml"))
    pins = locked(RENDERED / "requirements.lock")
    groups = table["dependency-groups"].values()
    wanted = [item for group in groups for item in group if isinstance(item, str)]
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted += [*ours["project"]["dependencies"], *ours["build-system"]["requires"]]
    wanted += [
        item for extra in ours["project"]["optional-dependencies"].values() for item in extra
    ]
    for requirement in map(Requirement, wanted):
        if requirement.name != "sm-mlops":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


@pytest.mark.slow
def test_no_file_knows_the_machine_it_was_written_on(template: Path) -> None:
    home = re.escape(str(Path.home()))
    place = re.escape(str(ROOT))
    personal = re.compile(
        rf"(?<![\w.-])({home}|{place})(?=/)|(?<![\w.-])/(home|Users)/\w+/|file://"
    )
    proxies = {v for k, v in os.environ.items() if k.lower().endswith(("index_url", "find_links"))}
    for name, text in texts(template).items():
        if name != "tests/template/test_repo.py":
            found = personal.search(text)
            assert not found, (name, found)
        assert not any(proxy in text for proxy in proxies if proxy), name


@pytest.mark.slow
def test_no_file_names_another_place_for_packages(template: Path) -> None:
    addresses = re.compile(
        r"https?://(?:[^@/\s]+@)?([a-z0-9.-]+)[^\s]*/simple|--(extra-)?index-url \S", re.I
    )
    for name, text in texts(template).items():
        found = addresses.search(text)
        assert not found or found[1] in ("pypi.org", "127.0.0.1"), (name, found)


@pytest.mark.parametrize("folder", [ROOT, RENDERED], ids=["template", "rendered"])
def test_make_help_lists_every_verb(folder: Path) -> None:
    makefile = (folder / "Makefile").read_text()
    [phony] = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    # As from a shell, also when these tests run under make.
    done = run("make", "--no-print-directory", "help", cwd=folder, MAKEFLAGS="", MAKELEVEL="0")
    assert [line.split()[1] for line in done.out.splitlines()] == phony.split()


FAKE_PYTHON = """#!/bin/sh
test "$1 $2" = "-m venv" || exec '{python}' "$@"
mkdir .venv && echo made >>made && sleep 1 && mkdir .venv/bin || exit 1
printf '#!/bin/sh\\n' >.venv/bin/python
cp .venv/bin/python .venv/bin/uv && chmod +x .venv/bin/*
"""


@pytest.mark.parametrize("folder", [ROOT, RENDERED], ids=["template", "rendered"])
def test_a_second_make_waits_for_the_setup_of_the_first(folder: Path, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(folder / name, tmp_path)
    for name in ("cookiecutter.json", "tool.txt"):
        (tmp_path / name).touch()
    python = tmp_path / "python"
    python.write_text(FAKE_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    # As from a shell, also when these tests run under make.
    shell = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "VENV")}
    both = [
        subprocess.Popen(
            ["make", f"PYTHON={python}", "setup"],
            cwd=tmp_path,
            env=shell,
            stdout=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]
    assert [make.wait() for make in both] == [0, 0]
    assert (tmp_path / "made").read_text() == "made\n"


def test_archives_are_unpacked_by_every_python_that_is_promised() -> None:
    # As an argument, Python 3.11.2 (Debian 12) does not know the filter; as an attribute it may.
    for file in RENDERED.rglob("*.py"):
        assert not re.search(r"\.extract(all)?\([^)]*filter=", file.read_text("utf-8")), file


def test_every_action_is_pinned_by_commit_and_leaves_no_credentials() -> None:
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        workflow: dict[str, Any] = yaml.safe_load(file.read_text())
        assert workflow["permissions"] == {"contents": "read"}
        for job in workflow["jobs"].values():
            for step in job["steps"]:
                if "uses" in step:
                    assert re.search(r"@[0-9a-f]{40}$", step["uses"]), step
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["persist-credentials"] is False


@pytest.mark.slow
def test_the_clean_copy_holds_what_a_clone_would(tmp_path: Path) -> None:
    copy = clean_copy(tmp_path / "copy")
    for name in ("cookiecutter.json", "hooks/post_gen_project.py", f"{RENDERED.name}/Makefile"):
        assert (copy / name).is_file()
    assert not (copy / ".git").exists() and not (copy / ".venv").exists()


@pytest.mark.slow
def test_ruff_leaves_nothing_in_the_folder_that_is_rendered(tmp_path: Path) -> None:
    """Its cache there could not be rendered."""
    copy = clean_copy(tmp_path / "clone")
    before = {*(copy / RENDERED.name).rglob("*")}
    done = run("make", "fix", f"VENV={sys.prefix}", cwd=copy, MAKEFLAGS="", MAKELEVEL="0")
    assert done.code == 0 and (copy / ".ruff_cache").is_dir(), done.err
    assert {*(copy / RENDERED.name).rglob("*")} == before
