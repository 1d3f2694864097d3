"""The approval trigger: how long it takes to import, how large it is, how much memory it needs.

Prints a table and one ratio, import of the function to import of boto3 and PyGithub, and fails when
the ratio or the package is above its limit or an invocation near its memory.
"""

import contextlib
import importlib
import importlib.util
import io
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

from sm_mlops import platform
from sm_mlops.bootstrap import assets
from sm_mlops.cli.sandbox_account import apply
from sm_mlops.sandbox import Server

ROOT = Path(__file__).resolve().parent.parent
FUNCTION = platform.FOLDER / "trigger"
MOST_OF_BOTH, MOST_BYTES = 0.5, 50_000
# Lambda's own runtime process takes some, which the sandbox does not have.
MOST_OF_MEMORY = 0.6
ROUNDS, INVOCATIONS = 15, 5
LAYER = ("github", "jwt", "nacl", "requests")
IMPORTS = {"the function": "handler", "boto3 and PyGithub": "boto3, github"}


def deployed(folder: Path) -> None:
    """Lay out what is brought to Lambda, the function and the layer's pure Python, as it arrives
    there: without bytecode, which Lambda has for its own packages only."""
    ignore = shutil.ignore_patterns("__pycache__")
    for file in FUNCTION.glob("*.py"):
        shutil.copy(file, folder)
    for name in LAYER:
        found = importlib.util.find_spec(name)
        assert found and found.origin, name
        shutil.copytree(Path(found.origin).parent, folder / name, ignore=ignore)


def seconds(modules: str, folder: Path) -> float:
    """Time that a fresh interpreter takes to import modules, by its own clock."""
    code = (
        f"import time; began = time.perf_counter(); import {modules}; "
        "print(time.perf_counter() - began)"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return float(done.stdout)


def imports() -> dict[str, float]:
    """Medians in seconds, measured by turns so that a busy machine is busy for both."""
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    with tempfile.TemporaryDirectory() as folder:
        deployed(Path(folder))
        for number in range(ROUNDS + 1):
            for name, modules in IMPORTS.items():
                taken = seconds(modules, Path(folder))
                # The first one reads from the disk.
                if number:
                    times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def used(account: Any, function: str) -> tuple[int, int, float]:
    """Return megabytes used at most and given, and median milliseconds, of some invocations."""
    functions, given, most, taken = account.aws.client("lambda"), 0, 0, []
    for _ in range(INVOCATIONS):
        arn = account.register("Approved")
        event = {"detail": {"ModelPackageArn": arn, "Replay": True}}
        began = time.perf_counter()
        answer = functions.invoke(FunctionName=function, Payload=json.dumps(event), LogType="Tail")
        taken.append(time.perf_counter() - began)
        said = json.loads(answer["Payload"].read())
        if not said.get("started"):
            raise SystemExit(f"the function did not start anything: {said}")
        report = b64decode(answer["LogResult"]).decode()
        found = re.search(r"Memory Size: (\d+) MB\tMax Memory Used: (\d+) MB", report)
        if not found:
            raise SystemExit(f"the function did not report its memory: {report}")
        given, most = int(found[1]), max(most, int(found[2]))
    return most, given, statistics.median(taken) * 1000


def memory(folder: Path) -> dict[str, tuple[int, int, float]]:
    """Return what an invocation takes in the sandbox, by how the function signs in at GitHub."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    cases: Any = importlib.import_module("connected_case")
    repos: Any = importlib.import_module("repos")
    repo = repos.make_repo(folder / "churn")
    with Server(folder / "account", cases.REGION) as server:
        apply(server.environment())
        # git tells that the repository it clones is empty.
        with (folder / "stderr").open("w") as nowhere, redirected(nowhere):
            account = cases.connect(server, repo, cases.app_layer())
        account.aws.client("events").disable_rule(Name="sm-mlops-approved")
        account.token()
        found = {"token": used(account, cases.TRIGGER)}
        accounts, people = server.github.accounts, importlib.import_module("github_people")
        app = people.add_app(accounts, "acme", "trigger", actions="write")
        installed = people.install(accounts, app["id"], "acme", ["churn"])
        account.credential(
            app_id=app["id"], installation_id=installed, private_key=app["private_key"]
        )
        found["GitHub App"] = used(account, cases.TRIGGER)
    return found


@contextlib.contextmanager
def redirected(target: io.TextIOBase | Any) -> Any:
    """Send standard error of this process and its children elsewhere."""
    kept = os.dup(2)
    os.dup2(target.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def package() -> int:
    """Return the bytes of trigger.zip, as `mlops bootstrap` uploads it."""
    return len(assets.build().files[assets.TRIGGER])


def main() -> None:
    times, size = imports(), package()
    with tempfile.TemporaryDirectory() as folder:
        invocations = memory(Path(folder))
    print(f"{'import':<22}{'ms':>8}")
    for name, taken in times.items():
        print(f"{name:<22}{taken * 1000:>8.0f}")
    print(f"{'signs in with':<22}{'MB':>8}{'of MB':>8}{'ms':>8}")
    for name, (most, given, taken) in invocations.items():
        print(f"{name:<22}{most:>8}{given:>8}{taken:>8.0f}")
    ours, theirs = times.values()
    print(
        f"trigger.zip: {size:,} bytes, at most {MOST_BYTES:,}; import of the function to import of "
        f"boto3 and PyGithub: {ours / theirs:.2f}, at most {MOST_OF_BOTH}"
    )
    large = [
        name for name, (most, given, _) in invocations.items() if most > MOST_OF_MEMORY * given
    ]
    if large or size >= MOST_BYTES or ours / theirs > MOST_OF_BOTH:
        raise SystemExit(f"above a limit{': memory with ' + ', '.join(large) if large else ''}")


if __name__ == "__main__":
    main()
