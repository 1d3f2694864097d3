"""Archives that nobody has looked into: what the library and the sandbox unpack of them."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from sm_mlops.deployment import smoke
from sm_mlops.sandbox import archives as uploads
from sm_mlops.tabular import archives

UNPACK = (archives.unpack, uploads.unpack_tar)
Unpack = Callable[[Path, Path], None]


def packed(tmp_path: Path, *members: tarfile.TarInfo) -> Path:
    target = tmp_path / "model.tar.gz"
    with tarfile.open(target, "w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size))
    return target


def entry(name: str, kind: bytes = tarfile.REGTYPE, to: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, to, size
    return found


@pytest.fixture(params=[True, False], ids=["filters", "no filters"])
def filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this Python has tarfile's filters, which 3.11 has since 3.11.4."""
    if not request.param and hasattr(tarfile, "data_filter"):
        monkeypatch.delattr(tarfile, "data_filter")
        trusting = staticmethod(tarfile.fully_trusted_filter)
        monkeypatch.setattr(tarfile.TarFile, "extraction_filter", trusting)
    return bool(request.param)


@pytest.mark.parametrize("unpack", UNPACK)
@pytest.mark.parametrize(
    "members",
    [
        [entry("../outside", size=1)],
        [entry("a/../../outside", size=1)],
        [entry("link", tarfile.SYMTYPE, ".."), entry("link/outside", size=1)],
        [entry("link", tarfile.SYMTYPE, "/etc/passwd")],
        [entry("link", tarfile.LNKTYPE, "../outside")],
        [entry("device", tarfile.CHRTYPE)],
        [entry("pipe", tarfile.FIFOTYPE)],
    ],
    ids=lambda members: f"{members[0].name} {members[0].linkname}",
)
def test_what_leads_out_of_the_folder_is_refused(
    tmp_path: Path, filters: bool, unpack: Unpack, members: list[tarfile.TarInfo]
) -> None:
    with pytest.raises((tarfile.TarError, OSError, KeyError)):
        unpack(packed(tmp_path, *members), tmp_path / "folder")
    assert {path.name for path in tmp_path.iterdir()} <= {"model.tar.gz", "folder"}
    inside = tmp_path / "folder"
    assert not inside.exists() or not [p for p in inside.rglob("*") if p.name != "link"]


@pytest.mark.parametrize("unpack", UNPACK)
def test_files_and_folders_are_unpacked(tmp_path: Path, filters: bool, unpack: Unpack) -> None:
    folder = entry("code", tarfile.DIRTYPE)
    archive = packed(tmp_path, folder, entry("code/a.py", size=3), entry("./b", size=1))
    unpack(archive, tmp_path / "folder")
    assert (tmp_path / "folder/code/a.py").read_bytes() == b"xxx"
    assert (tmp_path / "folder/b").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("unpack", "module", "name"),
    [(UNPACK[0], archives, "BYTES"), (UNPACK[1], uploads, "TAR_BYTES")],
)
def test_an_archive_that_grows_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unpack: Unpack, module: object, name: str
) -> None:
    archive = packed(tmp_path, *(entry(f"f{i}", size=10) for i in range(5)))
    for limit, value in (("MEMBERS", 4), (name, 49)):
        with monkeypatch.context() as patch:
            patch.setattr(module, limit, value)
            with pytest.raises(tarfile.TarError, match="more than may be unpacked"):
                unpack(archive, tmp_path / limit)
            assert len(list((tmp_path / limit).iterdir())) == 4
    unpack(archive, tmp_path / "whole")


def test_a_zip_of_more_than_lambda_allows_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../outside.py", "x" * 1000)
        archive.writestr("lambda.py", "x")
    uploads.unpack_zip(content.getvalue(), tmp_path / "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here"]
    for limit, value in (("MEMBERS", 1), ("ZIP_BYTES", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(uploads, limit, value)
            with pytest.raises(ValueError, match="Unzipped size must be smaller"):
                uploads.unpack_zip(content.getvalue(), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_a_sample_that_grows_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = packed(tmp_path, *(entry(f"f{i}", size=10) for i in range(5))).read_bytes()
    assert len(smoke.unpack(content)) == 5
    for limit, value in (("MEMBERS", 4), ("BYTES", 49)):
        with monkeypatch.context() as patch:
            patch.setattr(smoke, limit, value)
            with pytest.raises(ValueError, match="it holds more than"):
                smoke.unpack(content)
