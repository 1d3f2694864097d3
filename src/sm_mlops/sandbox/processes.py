"""How the sandbox starts a process of its own: with a built environment, and under supervision.

Knows nothing of what the process does.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def isolated_environment(base: Path, temporary: Path, region: str) -> dict[str, str]:
    """Return the environment of a process of the sandbox: built, so that nothing of the developer's
    gets in. `base` stands for /opt/ml."""
    tools = Path(sys.executable).parent
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
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "SAGEMAKER_BASE_DIR": str(base),
        "no_proxy": "localhost,127.0.0.1",
    }
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        environment[name] = environment[name.upper()] = nowhere
    return environment


def supervised(command: list[str]) -> list[str]:
    """Return the command that runs another under supervise.py."""
    return [sys.executable, "-I", "-S", str(_HERE / "supervise.py"), *command]
