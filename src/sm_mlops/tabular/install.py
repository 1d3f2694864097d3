"""Install what a bundle requires with pip: SageMaker does so before training and serving, but not
in processing jobs, which start this file with the path of their script and its arguments.

With `--model FOLDER` before them, it starts the script in an environment of its own, which has what
that model requires. Must not know what the scripts do.
"""

import itertools
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

if __name__ == "__main__":  # the folder of the bundle instead of this file's
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from sm_mlops.tabular.failure import DataError, leave, report
from sm_mlops.tabular.packaging import REQUIREMENTS


def install(folder: Path, python: str = sys.executable) -> None:
    """Install requirements.txt of a folder. Raise DataError with pip's reason."""
    command = [python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    # The variable is for an image whose Python is the system's own.
    done = subprocess.run(
        [*command, "--requirement", REQUIREMENTS],
        cwd=folder,
        env={**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise DataError(f"model/{REQUIREMENTS}: pip cannot install it: {reason(done.stdout)}")


def reason(output: str) -> str:
    """Return why pip has failed, by what it printed."""
    lines = [line.strip() for line in output.splitlines()]
    if "The conflict is caused by:" in lines:
        causes = lines[lines.index("The conflict is caused by:") + 1 :]
        return "; ".join(itertools.takewhile(bool, causes))
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["no reason given"])[-1]


def beside(folder: Path) -> str:
    """Make an environment that adds to the running one's packages, and return its Python."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    running = [p for p in sys.path if Path(p).name in ("site-packages", "dist-packages")]
    lines = [f"import site; site.addsitedir({path!r})\n" for path in running]
    (packages / "running.pth").write_text("".join(lines), encoding="utf-8")
    return str(folder / "bin" / "python")


def launcher(model: Path) -> list[str]:
    """Return the command that starts a script where a packed model has what it requires: in this
    job, or if that has installed something else, in an environment of its own."""
    own, here = model / "code" / REQUIREMENTS, Path(__file__).parents[2] / REQUIREMENTS
    needed, installed = (
        set(file.read_text(encoding="utf-8").splitlines()) if file.is_file() else set()
        for file in (own, here)
    )
    more = [] if needed <= installed else [__file__, "--model", str(model)]
    return [sys.executable, *more]


def main() -> None:
    """Install, and become the script."""
    command = sys.argv[1:]
    if command[0] != "--model":
        install(Path(command[0]).parent)
        os.execv(sys.executable, [sys.executable, *command])  # nosec B606 # without a shell
    python = beside(Path(tempfile.mkdtemp()))
    install(Path(command[1]) / "code", python)
    os.execv(python, [python, *command[2:]])  # nosec B606


if __name__ == "__main__":
    try:
        main()
    except DataError as error:
        if sys.argv[1] == "--model":  # the job may go on without it
            sys.exit(f"error: {error}")
        report(str(error))
        leave(2)
