"""Each example, laid over a render as its page says, is clean, compiles, trains and answers."""

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from container_case import sklearn_links
from rendering import ROOT, Rendered, mypy_cache, run
from sm_mlops import testing
from sm_mlops.settings import load
from sm_mlops.training.definition import compile_pipeline

EXAMPLES = ROOT / "examples"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())
# Those in the scikit-learn image, and what they install there.
PACKAGES: dict[str, tuple[str, ...]] = {"random-forest": (), "lightgbm": ("lightgbm",)}


def page(name: str) -> str:
    return (EXAMPLES / name / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def repo(default: Rendered, tmp_path: Path) -> Path:
    """A copy of the render with default answers."""
    return Path(shutil.copytree(default.path, tmp_path / "repo"))


def lay(name: str, repo: Path) -> None:
    """Run the first commands of an example's page in the repo."""
    [commands] = re.findall(r"```sh\n(cp .*?)```", page(name), re.DOTALL)
    for line in commands.splitlines():
        words = [word.replace("../sm-mlops", str(ROOT)) for word in line.partition("#")[0].split()]
        if words[0] in ("cp", "python"):
            done = run(*words, cwd=repo)
            assert done.code == 0, done.err


def find_packages(name: str, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip find what an example needs on this machine alone."""
    if name in PACKAGES:
        for variable, text in sklearn_links(work / "wheels", *PACKAGES[name]).items():
            monkeypatch.setenv(variable, text)


def test_the_list_names_each_example() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"\]\(([a-z-]+)/README\.md\)", text)) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_all_files_of_the_overlay_and_none_that_is_missing(
    name: str, repo: Path
) -> None:
    lay(name, repo)
    named = re.findall(r"`((?:model|samples)/[\w./-]+|[\w-]+\.(?:yaml|toml|txt))`", page(name))
    assert "mlops.yaml" in named
    for path in named:
        assert (repo / path).exists(), path
    laid = [path for path in (EXAMPLES / name / "overlay").rglob("*.*") if path.is_file()]
    for path in laid:
        assert f"`{path.relative_to(EXAMPLES / name / 'overlay')}`" in page(name)
    load(repo)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_example_is_clean_and_compiles(
    name: str,
    repo: Path,
    default: Rendered,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lay(name, repo)
    find_packages(name, tmp_path, monkeypatch)
    cache = str(mypy_cache(tmp_path_factory, default, tmp_path))
    for command in (
        ("ruff", "format", "--check", "--no-cache", "."),
        ("ruff", "check", "--no-cache", "."),
        ("mypy", "--cache-dir", cache),
    ):
        done = run("python", "-m", *command, cwd=repo)
        assert done.code == 0, done.out + done.err
    assert compile_pipeline(load(repo), testing.ACCOUNT).definition


def answers(repo: Path, work: Path, data: str) -> list[Any]:
    """Train a model that passes its gate, and serve it; return the answers for 200 raw rows."""
    settings = load(repo)
    metric, limit = settings.gate.metric, settings.gate.threshold
    with testing.trained(repo, work) as model, (repo / data).open(newline="") as stream:
        value = model.gate["metrics"][metric]["value"]
        assert value <= limit if settings.lower_is_better else value >= limit, value
        rows = [row for row, _ in zip(csv.DictReader(stream), range(200), strict=False)]
        return model.ask(json.dumps(rows).encode(), testing.JSON)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_another_algorithm_answers_in_the_scikit_learn_image(
    name: str, repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay(name, repo)
    find_packages(name, tmp_path, monkeypatch)
    found = answers(repo, tmp_path / "work", "data/breast-cancer.csv")
    assert {answer["prediction"] for answer in found} == {"malignant", "benign"}


@pytest.mark.long
@pytest.mark.slow
def test_a_message_is_classified(repo: Path, tmp_path: Path) -> None:
    lay("text-classification", repo)
    found = answers(repo, tmp_path / "work", "samples/tickets.csv")
    teams = {"billing", "delivery", "account", "technical"}
    assert {answer["prediction"] for answer in found} == teams
    assert set(found[0]["probabilities"]) == teams


@pytest.mark.long
@pytest.mark.slow
def test_what_the_earliest_days_taught_predicts_a_day(repo: Path, tmp_path: Path) -> None:
    lay("time-split", repo)
    found = answers(repo, tmp_path / "work", "samples/rides.csv")
    assert all(0 < answer["prediction"] < 1000 for answer in found)


@pytest.mark.long
@pytest.mark.slow
def test_a_cost_is_the_gate_s_metric(repo: Path, tmp_path: Path) -> None:
    lay("custom-metric", repo)
    found = answers(repo, tmp_path / "work", "samples/loans.csv")
    assert {answer["prediction"] for answer in found} == {"default", "repaid"}
    assert all((a["prediction"] == "default") == (a["probability"] >= 0.143) for a in found)
