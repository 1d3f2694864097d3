"""The archives that the platform is made from: the same on every machine, and errors of a line."""

from __future__ import annotations

import base64
import hashlib
import io
import shutil
import zipfile
from pathlib import Path

import pytest

from repos import Repo
from sm_mlops.bootstrap import assets
from sm_mlops.errors import MlopsError

ELF = b"\x7fELF\x02\x01\x01" + b"\0" * 11 + b"\xb7\0" + b"\0" * 44
MACHINE = "cp311-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64"
PACKAGES: dict[str, tuple[str, dict[str, bytes]]] = {
    "signs-1.0": (
        "py3-none-any",
        {
            "signs/__init__.py": b"WORD = 'layer'\n",
            "signs/tests/test_signs.py": b"",
            "signs-1.0.dist-info/entry_points.txt": b"[console_scripts]\nsigns = signs:main\n",
        },
    ),
    "native-2.0": (MACHINE, {"native/__init__.py": b"", "native/_rust.abi3.so": ELF}),
}


def names(content: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(content)).namelist()


def wheel(folder: Path, package: str) -> str:
    """Write a wheel into a folder; return its line of a lock."""
    tag, files = PACKAGES[package]
    name, _, version = package.partition("-")
    about = f"{package}.dist-info"
    tags = "".join(
        f"Tag: {tag.rpartition('-')[0]}-{each}\n" for each in tag.split("-")[2].split(".")
    )
    files = {
        **files,
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{about}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n{tags}".encode(),
    }
    digests = {path: hashlib.sha256(body).digest() for path, body in files.items()}
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()},{len(files[path])}"
        for path, digest in digests.items()
    ]
    files[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,\n"]).encode()
    file = folder / f"{package}-{tag}.whl"
    with zipfile.ZipFile(file, "w") as target:
        for path, body in files.items():
            target.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), body)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return f"{name}=={version} --hash=sha256:{digest}"


@pytest.fixture
def pinned(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A repo whose layer has two small packages, which uv finds in a folder; returns the lock."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lines = [wheel(wheels, package) for package in PACKAGES]
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    lock(repo, *lines)
    return lines


def lock(repo: Repo, *lines: str) -> None:
    (repo.root / assets.LOCK).write_text("\n".join(lines) + "\n")


def refusal(repo: Repo) -> str:
    with pytest.raises(MlopsError) as told:
        assets.build(repo.settings(), layer=True)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_the_function_has_its_two_files_and_is_small(repo: Repo) -> None:
    made = assets.build(repo.settings(), layer=False)
    assert set(made.files) == {"trigger.zip", "project.yml"}
    assert names(made.files["trigger.zip"]) == ["app.py", "handler.py"]
    assert len(made.files["trigger.zip"]) < 50_000
    assert made.files["project.yml"] == (repo.root / "infra" / "project.yml").read_bytes()


def test_the_same_contents_are_the_same_bytes_whenever_and_wherever_they_were_written(
    repo: Repo, tmp_path: Path
) -> None:
    made = assets.build(repo.settings(), layer=False)
    code = repo.root / "infra" / "trigger" / "handler.py"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(repo.root, elsewhere)
    moved = Repo(elsewhere)
    copy = elsewhere / "infra" / "trigger" / "handler.py"
    copy.write_bytes(code.read_bytes().replace(b"\n", b"\r\n"))
    copy.chmod(0o600)
    (copy.parent / "__pycache__").mkdir(exist_ok=True)
    assert assets.build(moved.settings(), layer=False) == made


@pytest.mark.parametrize(
    "name",
    [
        "trigger/handler.py", "trigger/app.py", "trigger/requirements.lock", "project.yml",
        "platform.yml",
    ],
)  # fmt: skip
def test_a_change_of_any_content_moves_them_all_below_another_prefix(repo: Repo, name: str) -> None:
    before = assets.build(repo.settings(), layer=False).prefix
    file = repo.root / "infra" / name
    file.write_text(file.read_text() + "# changed\n")
    after = assets.build(repo.settings(), layer=False).prefix
    assert before != after
    assert {prefix.rsplit("/", 2)[0] for prefix in (before, after)} == {"platform/1.0"}


def test_the_products_template_is_named_by_its_own_content(repo: Repo) -> None:
    made = assets.build(repo.settings(), layer=False)
    digest = hashlib.sha256(made.files["project.yml"]).hexdigest()[:16]
    assert made.key("project.yml") == f"platform/1.0/{digest}/project.yml"
    assert made.key("trigger.zip") == f"{made.prefix}trigger.zip"
    (repo.root / "infra" / "platform.yml").write_text("Parameters: {}\n")
    assert assets.build(repo.settings(), layer=False).template == made.template
    told = f"Version 1.0 of the template, {made.template}"
    for text in (told, f"https://b.s3.eu-west-1.amazonaws.com/{made.template}"):
        assert assets.template_in(text) == made.template
    assert assets.version_of(made.template) == "1.0"
    assert assets.template_in("made by hand from platform.yml") == ""


def test_the_prefix_is_one_that_the_platforms_template_takes(repo: Repo) -> None:
    import re

    from platform_case import template

    pattern = template("platform").parameters["AssetsPrefix"]["AllowedPattern"]
    assert re.fullmatch(pattern, assets.build(repo.settings(), layer=False).prefix)


def test_a_repo_without_a_template_version_is_told_where_it_belongs(repo: Repo) -> None:
    file = repo.root / "pyproject.toml"
    file.write_text(file.read_text().replace('template-version = "1.0"', ""))
    with pytest.raises(MlopsError, match=r"pyproject\.toml: \[tool\.mlops\] .*template-version"):
        assets.build(repo.settings(), layer=False)


def test_a_missing_file_is_named(repo: Repo) -> None:
    (repo.root / "infra" / "trigger" / "app.py").unlink()
    with pytest.raises(MlopsError, match=r"app\.py: no such file"):
        assets.build(repo.settings(), layer=False)
    shutil.copy(Path(__file__), repo.root / "infra" / "trigger" / "app.py")
    (repo.root / assets.LOCK).unlink()
    assert "requirements.lock: no such file" in refusal(repo)


@pytest.mark.slow
def test_the_layer_is_the_same_twice_and_has_what_runs_only(
    repo: Repo, pinned: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = assets.build(repo.settings(), layer=True)
    # As another person's machine would: nothing is cached, everything lies elsewhere.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another cache"))
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    assert assets.build(repo.settings(), layer=True) == made
    # Whether there is one, is not the repo's to say: it counts by what it is made from.
    assert made.prefix == assets.build(repo.settings(), layer=False).prefix
    assert names(made.files["layer.zip"]) == [
        "python/native-2.0.dist-info/METADATA",
        "python/native-2.0.dist-info/WHEEL",
        "python/native/__init__.py",
        "python/native/_rust.abi3.so",
        "python/signs-1.0.dist-info/METADATA",
        "python/signs-1.0.dist-info/WHEEL",
        "python/signs/__init__.py",
    ]


def test_a_package_that_is_not_the_pinned_one_is_refused(repo: Repo, pinned: list[str]) -> None:
    lock(repo, pinned[0][:-4] + "0000", pinned[1])
    assert "signs==1.0" in refusal(repo) and "hash mismatch" in refusal(repo)


def test_a_lock_without_hashes_is_refused(repo: Repo, pinned: list[str]) -> None:
    lock(repo, "signs==1.0", pinned[1])
    assert "must have a hash" in refusal(repo) and "signs==1.0" in refusal(repo)


def test_a_package_for_another_machine_is_refused(
    repo: Repo, pinned: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tag = MACHINE.replace("aarch64", "x86_64")
    monkeypatch.setitem(PACKAGES, "native-2.0", (tag, PACKAGES["native-2.0"][1]))
    (tmp_path / "wheels" / f"native-2.0-{MACHINE}.whl").unlink()
    lock(repo, wheel(tmp_path / "wheels", "native-2.0"))
    assert "native" in refusal(repo)


def test_an_index_out_of_reach_is_told_without_its_address(
    repo: Repo, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(repo, *pinned, f"absent==1.0 --hash=sha256:{'0' * 64}")
    told = refusal(repo)
    assert "offline" in told and "UV_OFFLINE" in told
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_INDEX_URL", "http://me:canary@127.0.0.1:9/simple")
    told = refusal(repo)
    assert "package index cannot be reached" in told and "UV_INDEX_URL" in told
    assert "canary" not in told and "127.0.0.1" not in told


def test_an_environment_without_uv_says_how_to_get_it(
    repo: Repo, pinned: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import sys
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert refusal(repo).endswith("this environment has no uv: make setup brings it")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (
            "error: Failed to install: x.whl\n  cause: failed to copy: No space left on device "
            "(os error 28)",
            "no space left on the disk",
        ),
        (
            "error: No solution found when resolving dependencies\n  cause: Because there is no "
            "version of x==9",
            "No solution found when resolving dependencies: Because there is no version of x==9",
        ),
        ("", "uv gave no reason"),
    ],
)
def test_what_uv_says_becomes_one_line(told: str, reason: str) -> None:
    assert assets._reason(told) == reason


def test_a_layer_larger_than_lambda_takes_is_refused(
    repo: Repo, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "LAYER_BYTES", 100)
    assert "Lambda takes 100" in refusal(repo)
