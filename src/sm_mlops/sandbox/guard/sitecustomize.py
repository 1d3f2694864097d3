"""Loaded by every Python process of a job: refuses connections that leave this machine.

A guard against accidents, since a job without network access would fail in the cloud too; it is not
a jail.
"""

import ipaddress
import sys

_EVENTS = {
    "socket.connect": 1,
    "socket.sendto": 1,
    "socket.sendmsg": 1,
    "socket.getaddrinfo": 0,
    "socket.gethostbyname": 0,
}


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


sys.addaudithook(_guard)
