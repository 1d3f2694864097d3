"""The archives that the platform is made from: the same on every machine, and errors of a line."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from platform_case import template
from sm_mlops import platform
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
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the platform's files that a test may edit."""
    copy = tmp_path / "platform"
    shutil.copytree(platform.FOLDER, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(platform, "FOLDER", copy)
    monkeypatch.setattr(platform, "version", lambda: "1.0")
    return copy


@pytest.fixture
def pinned(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pin two small packages, which uv finds in a folder, as the layer; return the lock."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    lines = [wheel(wheels, package) for package in PACKAGES]
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_FIND_LINKS", str(wheels))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    lock(*lines)
    return lines


def lock(*lines: str) -> None:
    (platform.FOLDER / assets.LOCK).write_text("\n".join(lines) + "\n")


def refusal(root: Path) -> str:
    with pytest.raises(MlopsError) as told:
        assets.build_layer(root)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_the_functions_have_their_files_and_are_small(package: Path) -> None:
    made = assets.build()
    assert set(made.files) == {"trigger.zip", "platform.yml", "project.yml"}
    assert names(made.files["trigger.zip"]) == sorted(
        file.name for file in (package / "trigger").glob("*.py")
    )
    assert len(made.files["trigger.zip"]) < 60_000
    assert made.files["project.yml"] == (package / "project.yml").read_bytes()


def test_the_same_contents_are_the_same_bytes_whenever_and_wherever_they_were_written(
    package: Path,
) -> None:
    made = assets.build()
    code = package / "trigger" / "handler.py"
    code.write_bytes(code.read_bytes().replace(b"\n", b"\r\n"))
    code.chmod(0o600)
    (package / "trigger" / "__pycache__").mkdir()
    assert assets.build() == made


@pytest.mark.parametrize(
    "name",
    [
        "trigger/handler.py", "trigger/notices.py", "trigger/requirements.lock", "project.yml",
        "platform.yml",
    ],
)  # fmt: skip
def test_a_change_of_any_content_moves_them_all_below_another_prefix(
    package: Path, name: str
) -> None:
    before = assets.build().prefix
    file = package / name
    file.write_text(file.read_text() + "# changed\n")
    after = assets.build().prefix
    assert before != after
    assert {prefix.rsplit("/", 2)[0] for prefix in (before, after)} == {"platform/1.0"}


def test_the_key_of_the_projects_template_is_found_in_texts(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "version", lambda: "1.0+acme.1")
    key = assets.build().template
    # S3 takes a plus sign in an address for a space.
    assert "+" not in key
    for text in (f"Made from {key}", f"https://b.s3.eu-west-1.amazonaws.com/{key}"):
        assert assets.template_in(text) == key
    assert assets.version_of(key) == "1.0+acme.1"
    assert assets.template_in("added by hand from platform.yml") == ""


@pytest.mark.parametrize("version", ["1.0", "0.2.0", "0.2.0rc1", "0.2.0.dev3", "0.2.0+acme.1"])
def test_the_platforms_template_takes_version_and_prefix(
    package: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(platform, "version", lambda: version)
    declared = template("platform").parameters
    given = {"TemplateVersion": version, "AssetsPrefix": assets.build().prefix}
    for name, value in given.items():
        assert re.fullmatch(declared[name]["AllowedPattern"], value), name


def test_the_tool_has_a_version() -> None:
    assert re.match(r"\d+\.\d+", platform.version())


@pytest.mark.slow
def test_the_layer_is_the_same_twice_and_has_what_runs_only(
    tmp_path: Path, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = assets.build_layer(tmp_path)
    # As on another person's machine: nothing is cached, and all paths differ.
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "another cache"))
    monkeypatch.setenv("UV_LINK_MODE", "copy")
    assert assets.build_layer(tmp_path) == made
    assert names(made) == [
        "python/native-2.0.dist-info/METADATA",
        "python/native-2.0.dist-info/WHEEL",
        "python/native/__init__.py",
        "python/native/_rust.abi3.so",
        "python/signs-1.0.dist-info/METADATA",
        "python/signs-1.0.dist-info/WHEEL",
        "python/signs/__init__.py",
    ]


@pytest.mark.slow
def test_a_package_that_is_not_the_pinned_one_is_refused(tmp_path: Path, pinned: list[str]) -> None:
    lock(pinned[0][:-4] + "0000", pinned[1])
    assert "signs==1.0" in refusal(tmp_path) and "hash mismatch" in refusal(tmp_path)


@pytest.mark.slow
def test_a_lock_without_hashes_is_refused(tmp_path: Path, pinned: list[str]) -> None:
    lock("signs==1.0", pinned[1])
    assert "must have a hash" in refusal(tmp_path) and "signs==1.0" in refusal(tmp_path)


def test_a_package_for_another_machine_is_refused(
    tmp_path: Path, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tag = MACHINE.replace("aarch64", "x86_64")
    monkeypatch.setitem(PACKAGES, "native-2.0", (tag, PACKAGES["native-2.0"][1]))
    (tmp_path / "wheels" / f"native-2.0-{MACHINE}.whl").unlink()
    lock(wheel(tmp_path / "wheels", "native-2.0"))
    assert "native" in refusal(tmp_path)


@pytest.mark.slow
def test_an_unreachable_index_is_reported_without_its_address(
    tmp_path: Path, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(*pinned, f"absent==1.0 --hash=sha256:{'0' * 64}")
    told = refusal(tmp_path)
    assert "offline" in told and "UV_OFFLINE" in told
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_INDEX_URL", "http://me:canary@127.0.0.1:9/simple")
    told = refusal(tmp_path)
    assert "cannot reach the package index" in told and "UV_INDEX_URL" in told
    assert "canary" not in told and "127.0.0.1" not in told


def test_an_environment_without_uv_says_how_to_get_it(
    tmp_path: Path, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    import venv

    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    assert refusal(tmp_path).endswith("this environment has no uv; run make setup")


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because there is no "
            "version of x==9",
            "No solution found when resolving dependencies: Because there is no version of x==9",
        ),
        ("", "uv gave no reason"),
    ],
)
def test_what_uv_reports_becomes_one_line(told: str, reason: str) -> None:
    assert assets._reason(told) == reason


def test_a_layer_larger_than_lambda_allows_is_refused(
    tmp_path: Path, pinned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "LAYER_BYTES", 100)
    assert "Lambda allows 100" in refusal(tmp_path)
