"""Runs one job's process and never lets it outlive the sandbox. Started as a script; standard
library only.

Standard input is the lifeline: "T" requests SIGTERM, "K" SIGKILL, and its end (the sandbox has
ended, for whatever reason) kills the job with everything it started.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main(command: list[str]) -> int:
    """Run the command to its end and return its exit code, 128 + signal if a signal ended it."""
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None) if linux else None
    if libc is not None:
        # The job's orphans become our children, so that we can end them.
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    wake, awake = os.pipe()
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(awake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = os.fork()
    if child == 0:
        try:
            os.setpgid(0, 0)
            if libc is not None:
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvp(command[0], command)  # nosec B606 # no shell
        except OSError as error:
            os.write(2, f"cannot start {command[0]}: {error.strerror}\n".encode())
        finally:
            os._exit(127)
    with contextlib.suppress(OSError):  # The child did it first, or has already ended.
        os.setpgid(child, child)
    code = watch(child, wake)
    end_group(child, signal.SIGKILL)
    if linux:
        end_strays()
    return code


def watch(child: int, wake: int) -> int:
    """Obey the lifeline until the child has ended; return its exit code."""
    sources = [0, wake]
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return 128 - code if code < 0 else code
        ready, _, _ = select.select(sources, [], [])
        if wake in ready:
            os.read(wake, 4096)
        if 0 in ready:
            order = os.read(0, 1)
            if order == b"T":
                end_group(child, signal.SIGTERM)
            else:
                end_group(child, signal.SIGKILL)
                if not order:
                    sources = [wake]


def end_group(group: int, how: int) -> None:
    """Signal every process of the job's group."""
    # The group may be empty; macOS says "not permitted" for a group of zombies.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, how)


def end_strays() -> None:
    """Kill what left the job's group (daemons), until no child remains."""
    while True:
        try:
            os.waitpid(-1, os.WNOHANG)
            with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123
                strays = [int(pid) for pid in file.read().split()]
        except (ChildProcessError, FileNotFoundError):
            return
        for pid in strays:
            os.kill(pid, signal.SIGKILL)
        if strays:
            os.waitpid(-1, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
