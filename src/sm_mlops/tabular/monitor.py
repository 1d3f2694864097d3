"""Stub."""

from pathlib import Path


def main(folder: Path) -> None: ...
