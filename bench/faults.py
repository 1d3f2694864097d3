"""Every call that bootstrap, deploy and destroy make to AWS and GitHub fails in every way: does the
command end with one line, and does the next run leave what a run without a failure leaves?

    python bench/faults.py      # about 10 minutes on 2 cores

Prints a row for each command and way: calls, how many of them ended the command, how many it got
through all the same, and what was wrong; exits with code 1 if anything was. `make test-long`
lets each call fail once, in one of the ways.
"""

import concurrent.futures
import contextlib
import importlib
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONNECT = ("bootstrap", "--yes")
S3 = (*CONNECT, "--template-provider", "s3")
DISCONNECT = ("bootstrap", "--destroy", "--yes")
# Name, sign-in, what to do before, and the command; a version's ARN follows `deploy`.
SCENES: dict[str, tuple[str, tuple[tuple[str, ...], ...], tuple[str, ...]]] = {
    "bootstrap, with a key": ("iam-user", (), CONNECT),
    "bootstrap, with OIDC, from S3": ("oidc", (), S3),
    "bootstrap --destroy": ("iam-user", (CONNECT,), DISCONNECT),
    "deploy": ("oidc", (), ("deploy", "staging", "--model-package-arn")),
    "destroy": (
        "oidc",
        (("deploy", "staging", "--model-package-arn"),),
        ("destroy", "staging", "--yes"),
    ),
}


def scene(name: str) -> list[tuple[str, str, bool, tuple[str, ...]]]:
    """For each way and each call of a command: way, call, whether the command got through all the
    same, and what was wrong in the end."""
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    case: Any = importlib.import_module("fault_case")
    sign_in, before, words = SCENES[name]
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet(),
        case.stage(Path(folder), sign_in=sign_in) as stage,
    ):
        arn = (
            case.deployable(stage) if "deploy" in (words[0], *(each[0] for each in before)) else ""
        )
        for each in before:
            done = stage.command(*each, *([arn] if each[0] == "deploy" else []))
            if done.code:
                raise SystemExit(f"{' '.join(each)}: {done.err}")
        campaign = case.Campaign(stage, *words, *([arn] if words[0] == "deploy" else []))
        # One after the other: from where a way has left off, the next need not be followed again.
        met = [
            campaign.meet(number, way) for way in case.WAYS for number in range(len(campaign.calls))
        ]
        return [(each.way, each.label, each.told == "got through", each.wrong) for each in met]


@contextlib.contextmanager
def quiet() -> Any:
    """Nobody reads the standard error of git and of what the sandbox starts."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def main() -> None:
    began, wrong, kinds = time.monotonic(), list[str](), Counter[str]()
    print(f"{'command':<32}{'way':<12}{'calls':>6}{'ended':>7}{'through':>9}{'wrong':>7}")
    with concurrent.futures.ProcessPoolExecutor(os.cpu_count() or 1, max_tasks_per_child=1) as pool:
        for name, met in zip(SCENES, pool.map(scene, SCENES), strict=True):
            for way in dict.fromkeys(way for way, *_ in met):
                rows = [each[1:] for each in met if each[0] == way]
                through = sum(went for _, went, _ in rows)
                bad = [
                    f"{name}, {way}, {call}: {'; '.join(what)}" for call, _, what in rows if what
                ]
                shown = f"{len(rows):>6}{len(rows) - through:>7}{through:>9}{len(bad):>7}"
                print(f"{name:<32}{way:<12}{shown}", flush=True)
                wrong += bad
            kinds.update(call.split()[0] for _, call, *_ in met)
    print("met, by service or method: " + ", ".join(f"{k} {n}" for k, n in kinds.most_common()))
    print(f"{kinds.total()} failures in {time.monotonic() - began:.0f} s")
    if wrong:
        raise SystemExit("\n".join(wrong))


if __name__ == "__main__":
    main()
