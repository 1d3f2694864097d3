"""A sandbox that is killed with kill -9 at any moment comes back whole."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

import model_case  # noqa: F401  (puts model/ on the path)
from kill_case import Killing
from repos import make_repo
from sm_mlops.tabular import sample_data


@pytest.mark.long
@pytest.mark.parametrize("rounds", [5])
def test_a_killed_sandbox_comes_back_whole_and_leaves_no_process(
    tmp_path: Path, rounds: int
) -> None:
    seed = int(os.environ.get("KILL_SEED") or random.SystemRandom().randrange(10**6))
    print(f"KILL_SEED={seed}")
    repo = make_repo(tmp_path / "repo")
    sample_data.write(repo.root / "data" / "breast-cancer.csv")
    repo.configure(hyperparameters={"num_boost_round": 50})
    killing = Killing(repo.root, random.Random(seed))
    try:
        longest = killing.setup()
        for _ in range(rounds):
            found = killing.round(longest)
            print(found)
            assert not found.problems, f"KILL_SEED={seed}"
    finally:
        left = killing.stop()
    assert not left
