"""Loaded by every Python process of a job: refuses connections that leave this machine, changes of
what a container may only read, and /opt/ml, which is another folder here.

A guard against accidents, since a job without network access would fail in the cloud too; it is not
a jail.
"""

import errno
import ipaddress
import os
import sys

_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}
_CHANGES = ("os.mkdir", "os.rmdir", "os.remove", "os.rename", "os.link", "os.symlink", "os.chmod")
_LOOKS = ("os.listdir", "os.scandir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_READ_ONLY = tuple(filter(None, os.environ.get("SANDBOX_READ_ONLY", "").split("\n")))
_OPT_ML = "/opt/ml"
_BASE = os.environ.get("SAGEMAKER_BASE_DIR", _OPT_ML)


def _is_here(host: object) -> bool:
    if isinstance(host, bytes):
        host = host.decode("ascii", "replace")
    if not isinstance(host, str) or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        import socket

        return host == socket.gethostname()


def _guard(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" or event in _CHANGES or event in _LOOKS:
        changes = event in _CHANGES or (event == "open" and _writes(arguments[2]))
        for argument in arguments[: 2 if event in _CHANGES else 1]:
            if isinstance(argument, str | os.PathLike):
                _refuse_opt_ml(os.fspath(argument))
                if changes:
                    _keep(os.path.abspath(argument))  # noqa: PTH100
        return
    position = _EVENTS.get(event)
    if position is None:
        return
    address = arguments[position]
    if isinstance(address, tuple):
        address = address[0] if len(address) >= 2 else ""
    elif position == 1:
        return  # A Unix socket's path, or none.
    if not _is_here(address):
        raise PermissionError(
            f"the sandbox lets jobs reach this machine only, not {address}: "
            "read data from the job's inputs"
        )


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & _WRITING)


def _refuse_opt_ml(path: str | bytes) -> None:
    """Name the way to a path of the container: a process cannot be shown another /opt/ml."""
    below = isinstance(path, str) and (path + os.sep).startswith(_OPT_ML + os.sep)
    if below and not _BASE.startswith(_OPT_ML):
        raise FileNotFoundError(
            errno.ENOENT,
            "in the sandbox, /opt/ml is a folder of the job: take the path from the script's "
            "arguments, hyperparameters or variables, where it stands for both",
            path,
        )


def _keep(path: str) -> None:
    if os.sep + "__pycache__" in path:
        return  # What Python itself compiles.
    for folder in _READ_ONLY:
        if path == folder or path.startswith(folder + os.sep):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), path)


sys.addaudithook(_guard)
