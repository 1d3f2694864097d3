"""A review: what it compares, what it reports, and that it cleans up."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console
from typer.testing import CliRunner

from hostile import HOSTILE
from repos import Repo, make_repo, mlops, mlops_ended
from sm_mlops import settings as mlops_settings
from sm_mlops.aws import Aws
from sm_mlops.cli.main import app
from sm_mlops.errors import MlopsError
from sm_mlops.settings import Gate
from sm_mlops.training import artifacts, review_report
from sm_mlops.training import review as reviews
from sm_mlops.training.artifacts import Dataset
from sm_mlops.training.definition import DEFINITION
from sm_mlops.training.review import Review, Trained

BASE, CHANGE = "b" * 40, "c" * 40
ARN = "arn:aws:sagemaker:eu-west-1:123456789012:model-package/churn/2"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def committed(repo: Repo) -> str:
    """Make `repo` a git repository whose first commit, on main, holds everything."""
    (repo.root / ".gitignore").write_text("data/\n")
    git(repo.root, "init", "--quiet", "--initial-branch=main")
    return commit(repo)


def commit(repo: Repo) -> str:
    git(repo.root, "add", ".")
    git(repo.root, "commit", "--quiet", "-m", "a change")
    return git(repo.root, "rev-parse", "HEAD")


def left(repo: Repo, temporary: Path) -> tuple[int, list[Path]]:
    """Count the worktrees that git knows, and list folders of reviews in their temp folder."""
    trees = git(repo.root, "worktree", "list", "--porcelain").count("worktree ")
    return trees, sorted(temporary.glob("mlops-review-*"))


# ---- The report ----


def entry(
    value: float, champion: float | None = None, text: str = "", better: str = "higher"
) -> dict[str, Any]:
    found = {"value": value, "champion": champion, "worse_by": 0.0, "better": better}
    return {**found, "text": text}


def definition(steps: list[dict[str, Any]], **parameters: object) -> str:
    values = [{"Name": name, "DefaultValue": value} for name, value in parameters.items()]
    return json.dumps({"Parameters": values, "Steps": steps})


PLAIN = definition([{"Name": "Train", "Arguments": {"code": 1}}], MaxDepth="5")
METRICS = {
    "logloss": entry(0.2, 0.1, better="lower"),
    "auc": entry(0.95, 0.9),
    "rmse": entry(1e308, text="rmse does not fit", better="lower"),
}
ROWS = {"test/0.parquet": "hash"}


def compared(repo: Repo, base: Trained, change: Trained) -> str:
    data = Dataset("s3://bucket/data/", "d" * 64, 1, 100)
    return review_report.markdown(Review(repo.settings(), BASE, CHANGE, data, base, change))


def good(**metrics: Any) -> Trained:
    gate = {"metrics": METRICS | metrics, "rows": {"train": 70, "test": 15}}
    return Trained(PLAIN, gate, ROWS, ARN)


def test_metrics_are_beside_the_champions_with_the_gate_metric_first(repo: Repo) -> None:
    report = compared(repo, good(), good())
    assert report.startswith("## ✅ churn: passes the gate")
    rows = [line for line in report.splitlines() if line.startswith("| ")][1:]
    assert re.fullmatch(
        r"\| \*\*auc\*\*, at least 0\.95, at most 0\.01 worse "
        r"\| 0\.9500 \| 0\.9000 \| better by 0\.0500 \|",
        rows[0],
    )
    assert rows[1:] == ["| logloss | 0.2000 | 0.1000 | worse by 0.1000 |"]
    assert "bbbbbbb" in report and "ccccccc" in report
    assert "70 training and 15 test rows" in report
    assert "Unchanged." in report


def tokens(markdown: str) -> Iterator[Token]:
    """Yield what GitHub would make of it, inside of blocks, too; its links without brackets, its
    mentions and references are made of text only, never of code."""
    for token in MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(markdown):
        yield token
        yield from token.children or ()


OURS = re.compile(r"</?(sub|details|summary)>")


def renders_nothing(report: str, hostile: str, columns: int = 4) -> None:
    """Fail if a word of somebody else's stands anywhere but in code, or has become anything."""
    cells = 0
    for token in tokens(report):
        assert token.type not in ("link_open", "image"), token
        if token.type in ("html_inline", "html_block"):
            assert not re.sub(r"\d+ changed lines|\s", "", OURS.sub("", token.content)), token
        if token.type == "text":
            assert "@" not in token.content and "://" not in token.content, token
            assert not re.search(r"#\d|GH-|www\.|evil|alert|octocat", token.content), token
        if token.type in ("code_inline", "fence"):
            assert all(c.isprintable() or c == "\n" for c in token.content), token
        cells = 0 if token.type == "tr_open" else cells + (token.type in ("th_open", "td_open"))
        assert token.type != "tr_close" or cells == columns, hostile


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_messages_of_the_change_are_shown_and_not_rendered(repo: Repo, text: str) -> None:
    metrics = METRICS | {"auc": entry(1e308, text=text), text: entry(0.5, 0.4)}
    steps = [{"Name": text, "Arguments": {text: text}}]
    change = Trained(
        definition(steps, **{text: text}), good(**metrics).gate, ROWS, "", (text, f"```\n{text}")
    )
    base = Trained(PLAIN, None, ROWS, "", (text,))
    renders_nothing(compared(repo, base, change), text)
    renders_nothing(review_report.refused("churn", text, text), text)


def test_a_metric_of_the_team_s_own_is_compared_in_its_direction() -> None:
    cost = entry(0.4, 0.5, better="lower")
    assert "| `cost` | 0.4000 | 0.5000 | better by 0.1000 |" in review_report._row(
        "cost", cost, Gate()
    )
    assert "**cost**, at most 1, " in review_report._row("cost", cost, Gate("cost", 1.0))


@pytest.mark.slow
@given(text=st.text(min_size=1))
def test_no_name_of_a_metric_breaks_out_of_its_cell(text: str) -> None:
    row = review_report._row(text, entry(0.5, 0.4), Gate())
    renders_nothing(f"| a | b | c | d |\n|---|---|---|---|\n{row}", text)
    assert row.count("|") == 5


def test_a_difference_that_rounds_to_zero_is_the_same(repo: Repo) -> None:
    assert "| 0.9500 | 0.9500 | same |" in compared(repo, good(), good(auc=entry(0.95, 0.950001)))


def test_a_change_that_the_gate_stops_says_why(repo: Repo) -> None:
    why = "QualityGate: auc 0.4 `on` 15 test rows | wanted at least 0.95"
    change = Trained(PLAIN, {"metrics": METRICS}, ROWS, "", (why,))
    report = compared(repo, good(), change)
    assert report.startswith(f"## ❌ churn: stopped by the gate\n\n```\n{why}\n```\n")


def test_a_change_that_does_not_train_shows_the_end_of_the_log(repo: Repo) -> None:
    report = compared(repo, good(), Trained(PLAIN, failure=("Train: boom", "```", "Traceback")))
    assert "❌ churn: could not be trained" in report
    assert "\n````\nTrain: boom\n```\nTraceback\n````\n" in report


def test_without_a_champion_the_reason_is_shown_and_the_change_is_evaluated(repo: Repo) -> None:
    report = compared(repo, Trained(failure=("Train: boom",)), good(auc=entry(0.97)))
    assert "✅ churn: passes the gate" in report
    assert "No champion from `bbbbbbb` to compare with:\n\n```\nTrain: boom\n```" in report
    assert "| 0.9700 | | |" in report
    assert "Not compared" in report


def test_another_split_is_a_warning(repo: Repo) -> None:
    other = Trained(PLAIN, {"metrics": METRICS}, {"test/0.parquet": "other"}, ARN)
    assert "split the data differently" in compared(repo, other, good())
    assert "split the data differently" not in compared(repo, good(), good())


def test_a_gate_on_a_metric_that_does_not_fit_says_so(repo: Repo) -> None:
    repo.configure(gate={"metric": "rmse"})
    assert "\n`rmse does not fit`\n" in compared(repo, good(), good())


def test_the_change_of_the_definition_names_parameters_and_steps(repo: Repo) -> None:
    before = definition(
        [
            {"Name": "Train", "Arguments": {"code": 1}},
            {"Name": "Gate", "Arguments": {"IfSteps": [{"Name": "Register", "Arguments": {}}]}},
        ],
        MaxDepth="5",
        Gone="x",
        Same=1,
    )
    after = definition(
        [
            {"Name": "Train", "Arguments": {"code": 2}},
            {"Name": "Gate", "Arguments": {"IfSteps": [{"Name": "Tell", "Arguments": {}}]}},
        ],
        MaxDepth="4|`",
        Same=1,
        New="",
    )
    report = compared(
        repo, Trained(before, model_package=ARN), Trained(after, {"metrics": METRICS})
    )
    told = [line for line in report.splitlines() if line.startswith("- ") and "`" in line]
    assert told == [
        "- parameter `MaxDepth`: `5` → `4\\x7c\\x60`",
        "- parameter `Gone` removed",
        "- parameter `New` added: ` `",
        "- step `Train` changed",
        "- step `Register` removed",
        "- step `Tell` added",
    ]
    assert '\n-        "code": 1\n+        "code": 2\n' in report


def test_a_step_in_which_only_the_code_changed_says_so(repo: Repo) -> None:
    def running(digest: str, **more: Any) -> str:
        arguments = {"S3Uri": f"s3://bucket/churn/code/{digest * 32}/source.tar.gz", **more}
        return definition([{"Name": "Train", "Arguments": arguments}])

    def told(after: str) -> list[str]:
        report = compared(repo, Trained(running("a"), model_package=ARN), Trained(after))
        return [line for line in report.splitlines() if line.startswith("- step ")]

    assert told(running("b")) == ["- step `Train`: only its code, or the settings in it"]
    assert told(running("b", Instances=2)) == ["- step `Train` changed"]
    assert told(running("a")) == []


def test_a_long_diff_is_cut_and_says_so(repo: Repo) -> None:
    many = [{"Name": str(number), "Arguments": {}} for number in range(1000)]
    report = compared(repo, Trained(PLAIN, model_package=ARN), Trained(definition(many)))
    assert report.count("\n+") <= review_report.DIFF_LINES
    assert re.search(r"\.\.\. and \d{4} more lines\n```", report)


def test_a_change_that_is_behind_its_base_says_so(repo: Repo) -> None:
    data = Dataset("s3://bucket/data/", "d" * 64, 1, 100)
    stale, fresh = (
        review_report.markdown(
            Review(repo.settings(), BASE, CHANGE, data, good(), good(), behind=number)
        )
        for number in (2, 0)
    )
    assert "\n\nThis change is 2 commits behind the base" in stale
    assert "behind the base" not in fresh


# ---- What it compares with ----


def test_commits_that_only_the_base_has_are_counted(repo: Repo) -> None:
    first = committed(repo)
    (repo.root / "more").write_text("more")
    second = commit(repo)
    assert [reviews.behind(repo.root, base) for base in (first, second)] == [0, 0]
    git(repo.root, "checkout", "--quiet", first)
    assert reviews.behind(repo.root, second) == 1


@pytest.mark.slow
def test_the_merge_that_ci_checks_out_is_named_by_the_commit_that_was_merged(
    repo: Repo, tmp_path: Path
) -> None:
    first = committed(repo)
    git(repo.root, "checkout", "--quiet", "-b", "change")
    (repo.root / "mine").write_text("mine")
    mine = commit(repo)
    git(repo.root, "checkout", "--quiet", "main")
    (repo.root / "theirs").write_text("theirs")
    theirs = commit(repo)
    git(repo.root, "merge", "--quiet", "--no-edit", "change")
    # As actions/checkout does with fetch-depth: 2.
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-local", "--depth=2", str(repo.root), str(clone))
    assert reviews.resolved(clone, "HEAD^1") == theirs
    assert reviews.of_change(clone, theirs) == mine
    assert reviews.behind(clone, theirs) == 0
    merge = git(repo.root, "rev-parse", "HEAD")
    assert reviews.of_change(repo.root, first) == merge
    (repo.root / "mlops.yaml").write_text("data: {}\n")
    assert reviews.of_change(repo.root, theirs) == f"{mine}-dirty"


def test_whatever_stops_a_review_is_in_its_report(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the comment of an earlier commit would stay, which says that the gate is passed."""

    def fails(*_: Any) -> Any:
        raise KeyError("surprise")

    monkeypatch.chdir(repo.root)
    monkeypatch.setattr(reviews, "review", fails)
    report = tmp_path / "review.md"
    done = CliRunner().invoke(app, ["review", "--output", str(report)])
    assert isinstance(done.exception, KeyError)
    assert "KeyError: 'surprise'" in report.read_text()
    # Nor are the settings needed: ci.yml names the project.
    (repo.root / "mlops.yaml").write_text("data: [")
    monkeypatch.setenv("PROJECT", "churn")
    assert CliRunner().invoke(app, ["review", "--output", str(report)]).exit_code
    assert "churn: not reviewed" in report.read_text() and "mlops.yaml" in report.read_text()


@pytest.mark.slow
def test_a_base_that_this_clone_does_not_have_is_one_line(repo: Repo, tmp_path: Path) -> None:
    committed(repo)
    done = mlops(repo.root, "review", "--base", "f" * 40, "--output", str(tmp_path / "review.md"))
    assert done.returncode == 2
    assert done.stderr.startswith(f"mlops: cannot compare with {'f' * 40}: no such commit")
    assert done.stderr.count("\n") == 1
    report = (tmp_path / "review.md").read_text(encoding="utf-8")
    assert "❌ churn: not reviewed" in report and "fetch-depth: 0" in report


def test_a_base_beyond_a_shallow_clone_is_one_line(repo: Repo, tmp_path: Path) -> None:
    base = committed(repo)
    (repo.root / "more").write_text("more")
    commit(repo)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", "--quiet", "--no-local", "--depth=1", str(repo.root), str(clone))
    with pytest.raises(MlopsError, match="no such commit in this clone"):
        reviews.resolved(clone, base)
    assert reviews.resolved(repo.root, base[:8]) == base == reviews.resolved(repo.root, "HEAD~1")


def test_outside_of_git_it_fails_in_one_line(repo: Repo) -> None:
    with pytest.raises(MlopsError, match="not a git repository"):
        reviews.resolved(repo.root, "main")


def test_a_base_that_looks_like_an_option_is_not_one(repo: Repo) -> None:
    committed(repo)
    with pytest.raises(MlopsError, match="no such commit"):
        reviews.resolved(repo.root, "--all")


# ---- Rows that stand in for those in S3 ----


def test_in_the_sandbox_the_sample_stands_in_for_the_data(account: Aws, repo: Repo) -> None:
    (repo.root / "sample.csv").write_text("a,y\n1,2\n")
    settings = repo.configure(data={"path": "s3://elsewhere/rows/", "sample": "sample.csv"})
    found = artifacts.upload_data(Aws(settings, sandbox=True))
    assert (found.files, found.size) == (1, 8)
    with pytest.raises(Exception, match="NoSuchBucket"):
        artifacts.upload_data(Aws(settings))


def test_without_a_sample_data_in_s3_is_refused_in_the_sandbox(account: Aws, repo: Repo) -> None:
    settings = repo.configure(data={"path": "s3://elsewhere/rows/"})
    with pytest.raises(MlopsError, match=r"does not reach s3://elsewhere/rows/; .* data\.sample"):
        artifacts.upload_data(Aws(settings, sandbox=True))


def test_in_the_sandbox_what_its_s3_lacks_is_named(account: Aws, repo: Repo) -> None:
    settings = repo.configure(data={"path": f"s3://{account.bucket}/rows/"})
    with pytest.raises(MlopsError, match=r"no object and no folder s3://.*/rows/$"):
        artifacts.upload_data(Aws(settings, sandbox=True))


def test_a_missing_sample_is_named(account: Aws, repo: Repo) -> None:
    settings = repo.configure(data={"sample": "rows.csv"})
    with pytest.raises(MlopsError, match=r"data\.sample in mlops\.yaml: rows\.csv does not exist"):
        artifacts.upload_data(Aws(settings, sandbox=True))


def test_a_sample_without_a_file_is_named(account: Aws, repo: Repo) -> None:
    (repo.root / "rows").mkdir()
    settings = repo.configure(data={"sample": "rows"})
    with pytest.raises(MlopsError, match=r"data\.sample in mlops\.yaml: the folder .* no files"):
        artifacts.upload_data(Aws(settings, sandbox=True))


@pytest.mark.slow
def test_rows_that_are_not_in_git_are_missing_with_a_remedy(account: Aws, repo: Repo) -> None:
    settings = repo.configure(data={"path": "data/own.csv"})
    with pytest.raises(MlopsError, match=r"own\.csv does not exist .*; set data\.sample "):
        reviews._rows(Aws(settings, sandbox=True))


@pytest.mark.parametrize("sample", ["", "s3://bucket/rows/"])
def test_a_sample_is_in_this_repo(repo: Repo, sample: str) -> None:
    with pytest.raises(mlops_settings.SettingsError, match=r"data\.sample must be"):
        repo.configure(data={"sample": sample})


# ---- For real ----


@pytest.fixture
def life(tmp_path: Path) -> Repo:
    """Make a repo below a folder with spaces, itself a folder of a larger repository."""
    return make_repo(tmp_path / "all models" / "churn model")


@pytest.fixture
def base(life: Repo) -> str:
    """Commit the repo to main."""
    git(life.root.parent, "init", "--quiet", "--initial-branch=main")
    (life.root / ".gitignore").write_text("data/\n__pycache__/\n")
    life.configure(gate={"threshold": 0.9}, hyperparameters={"num_boost_round": 50})
    return commit(life)


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "it has no mlops.yaml yet"), ("data: {path: x}", "mlops.yaml: data.target is missing")],
)
def test_a_base_that_cannot_be_read_is_the_reason_for_no_champion(
    account: Aws, repo: Repo, content: str | None, said: str
) -> None:
    (repo.root / "mlops.yaml").unlink()
    if content is not None:
        (repo.root / "mlops.yaml").write_text(content)
    data = Dataset("s3://bucket/data/", "d" * 64, 1, 100)
    trained = reviews._train_base(account, lambda _: account, repo.root, data, Console())
    assert trained == Trained(failure=(said,))


@pytest.mark.long
def test_a_change_is_trained_beside_its_base_and_nothing_is_left_behind(
    life: Repo, base: str, tmp_path: Path
) -> None:
    before = left(life, tmp_path)
    life.configure(hyperparameters={"max_depth": 2})
    definition = life.root / DEFINITION
    text = definition.read_text(encoding="utf-8")
    own = '    own = [\n        ParameterString("Mine", "x"),\n'
    definition.write_text(text.replace("    own = [\n", own), encoding="utf-8")
    summary = tmp_path / "summary"
    output = tmp_path / "a folder" / "review.md"
    done = mlops(
        *(life.root, "review", "--output", str(output)),
        GITHUB_STEP_SUMMARY=str(summary),
        GITHUB_OUTPUT=str(tmp_path / "output"),
        MLOPS_SANDBOX="1",
        TMPDIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = output.read_text(encoding="utf-8")
    assert "✅ churn: passes the gate" in report
    assert re.search(r"\*\*auc\*\*.*\| [01]\.\d{4} \| [01]\.\d{4} \| (same|better|worse)", report)
    assert "- parameter `MaxDepth`: `5` → `2`" in report
    assert "- parameter `Mine` added: `x`" in report, "each side has its own definition"
    assert f"{base[:7]}-dirty against {base[:7]}" in report
    assert "split differently" not in report and "no champion" not in report
    assert summary.read_text(encoding="utf-8").strip() == report.strip()
    assert not (tmp_path / "output").exists(), "the base's execution is not this step's"
    assert left(life, tmp_path) == before
    assert not (life.root / ".sandbox").exists()


@pytest.mark.long
def test_a_change_with_other_classes_is_trained_and_says_that_nothing_was_compared(
    life: Repo, base: str, tmp_path: Path
) -> None:
    rows = artifacts.local_data(life.settings()).read_text(encoding="utf-8")
    (life.root / "rows.csv").write_text(rows, encoding="utf-8")
    life.configure(data={"path": "rows.csv", "target": "mean_radius", "positive": None},
                   gate={"metric": "r2", "threshold": 0.1})  # fmt: skip
    output = tmp_path / "review.md"
    done = mlops(life.root, "review", "--base", base, "--output", str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    report = output.read_text(encoding="utf-8")
    assert "**The base cannot be scored**: `r2 " in report
    assert "it predicts _diagnosis__ a binary task" in report


@pytest.mark.long
def test_a_change_that_the_gate_stops_ends_with_1(life: Repo, base: str, tmp_path: Path) -> None:
    """Break the base, so that there is no champion either."""
    life.configure(hyperparameters={"max_depth": 5}, gate={"threshold": 1})
    broken = life.root / "model" / "train.py"
    text = broken.read_text(encoding="utf-8")
    broken.write_text("raise SystemExit('not today')\n", encoding="utf-8")
    commit(life)
    broken.write_text(text, encoding="utf-8")
    life.configure(gate={"tolerance": 0}, hyperparameters={"num_boost_round": 1})
    output = tmp_path / "review.md"
    done = mlops(life.root, "review", "--base", "HEAD", "--output", str(output))
    assert done.returncode == 1, done.stdout + done.stderr
    report = output.read_text(encoding="utf-8")
    assert "❌ churn: stopped by the gate" in report
    assert re.search(r"```\nGateFailed: QualityGate: auc 0\.\d+ .*wanted at least 1", report)
    assert re.search(r"No champion from `\w+` to compare with:\n\n```\nTrain: .*", report)
    assert report.count("not today") == 1, "what is said once is not said again by the log"
    assert "- step `Train`: only its code" in report


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_review_leaves_nothing_behind(
    life: Repo, base: str, tmp_path: Path, how: signal.Signals
) -> None:
    before = left(life, tmp_path)
    during = []

    def trains(line: str) -> bool:
        if "Preprocess" in line:
            during.append(left(life, tmp_path))
        return bool(during)

    code, said = mlops_ended(
        life.root, trains, "review", "--base", base, how=how, TMPDIR=str(tmp_path)
    )
    assert code == 130, said
    assert during != [before]
    assert "Traceback" not in said
    assert left(life, tmp_path) == before
