"""kill -9 at random moments of a sandbox's life: does it always come back, whole and alone?

    python bench/kill.py [ROUNDS] [SEED]      # 50 rounds unless told otherwise

A round starts an execution of the default pipeline and kills the server, one of its jobs, all of
it, or a server that is just starting. Then nothing may be left running, the next start must work,
every version must have its model and metrics, and the next execution must register one more.
Prints a table; exits with code 1 if anything was wrong.
"""

import importlib
import random
import statistics
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from sm_mlops.tabular import sample_data

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

# Found on the path that was just set.
kill_case: Any = importlib.import_module("kill_case")
repos: Any = importlib.import_module("repos")

ROUNDS = 50


def main() -> int:
    """Kill, print, judge."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    found, problems = [], list[str]()
    with tempfile.TemporaryDirectory() as folder:
        repo = repos.make_repo(Path(folder).resolve() / "repo")
        sample_data.write(repo.root / "data" / "breast-cancer.csv")
        repo.configure(hyperparameters={"num_boost_round": 50})
        killing = kill_case.Killing(repo.root, random.Random(seed))
        try:
            longest = killing.setup()
            print(f"a run takes {longest:.1f} s")
            print(f"{'round':>5}  {'killed':18} {'after':>6}  {'in':24} {'back':>6}  versions")
            for number in range(1, rounds + 1):
                one = killing.round(longest)
                print(
                    f"{number:5}  {one.victim:18} {one.after:4.1f} s  {one.step:24} "
                    f"{one.back:4.1f} s  {one.versions:8}",
                    *one.problems,
                    flush=True,
                )
                found.append(one)
                problems += one.problems
        finally:
            problems += [f"left at the end: {words}" for words in killing.stop()]
    killed = Counter(one.victim for one in found)
    back = [one.back for one in found]
    print(
        f"kill: {len(problems)} problems in {len(found)} rounds ("
        + ", ".join(f"{name} {count}" for name, count in killed.most_common())
        + f"); back in {statistics.median(back):.1f} s, at most {max(back):.1f} s"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
