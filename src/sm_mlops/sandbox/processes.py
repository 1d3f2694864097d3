"""How the sandbox starts its processes: in an environment of their own, under supervision.

Knows nothing of what the process does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, cast

_HERE = Path(__file__).resolve().parent


def isolated_environment(
    base: Path,
    temporary: Path,
    region: str,
    tools: Path = Path(sys.executable).parent,
    read_only: Sequence[Path] = (),
) -> dict[str, str]:
    """Return the environment of a process of the sandbox, without any of the developer's own
    variables. `base` stands for /opt/ml; commands of `tools` are found first."""
    nowhere = "http://127.0.0.1:9"
    environment = {
        "PATH": os.pathsep.join([str(tools), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(temporary),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(_HERE / "guard"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        # Threads that wait sleep: beside other processes, spinning takes ten times as long.
        "OMP_WAIT_POLICY": "PASSIVE",
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAGEMAKER_BASE_DIR": str(base),
        "SANDBOX_READ_ONLY": "\n".join(map(str, read_only)),
        "no_proxy": "localhost,127.0.0.1",
    }
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment[name] = environment[name.upper()] = nowhere
    return environment


def start(
    command: list[str],
    output: IO[bytes],
    folder: Path,
    environment: dict[str, str],
    sockets: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a command under supervise.py, in a folder and with inherited sockets."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(_HERE / "supervise.py"), *command],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        cwd=folder,
        env=environment,
        pass_fds=sockets,
        start_new_session=True,
    )


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process with everything it has started, and wait until it is gone."""
    # The end of its lifeline; see supervise.py.
    with contextlib.suppress(OSError):
        cast(Any, process.stdin).close()
    process.wait()
