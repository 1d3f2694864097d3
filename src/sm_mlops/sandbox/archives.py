"""Unpacks what a client has uploaded, within limits. Knows no service."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

MEMBERS = 10_000
TAR_BYTES = 10 << 30
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ZIP_BYTES = 250 << 20


def unpack_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar archive, nothing of it outside of a folder. Raises TarError."""
    with tarfile.open(archive) as tar:
        filtered = hasattr(tarfile, "data_filter")
        if filtered:
            tar.extraction_filter = tarfile.data_filter
        size = 0
        for count, member in enumerate(tar, 1):
            size += member.size
            if count > MEMBERS or size > TAR_BYTES:
                raise tarfile.TarError("it holds more than may be unpacked")
            # Python has filters since 3.11.4; Debian 12 has 3.11.2.
            path = PurePosixPath(member.name)
            inside = not path.is_absolute() and ".." not in path.parts
            if not filtered and not (inside and (member.isfile() or member.isdir())):
                raise tarfile.TarError(f"{member.name} is a link, or leads out of the archive")
            tar.extract(member, folder)


def unpack_zip(content: bytes, folder: Path) -> None:
    """Unpack a zip archive into a folder. Raises ValueError for more than Lambda allows."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = archive.infolist()
        if len(found) > MEMBERS or sum(each.file_size for each in found) > ZIP_BYTES:
            raise ValueError(f"Unzipped size must be smaller than {ZIP_BYTES} bytes")
        archive.extractall(folder)  # nosec B202 # checked above
