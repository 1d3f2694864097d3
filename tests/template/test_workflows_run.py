"""The rendered workflows, executed: pull requests, builds and deployments of a rendered repo.

The sandbox is their AWS. Each story is told once, by whichever process comes first; the tests look
at what it came to.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from rendering import mypy_cache, once
from workflow_judges import SIGN_INS
from workflow_reader import Run, git
from workflow_stories import (
    FEW_TESTS,
    Comments,
    Connected,
    Story,
    commit,
    committed,
    connected,
    hub_for,
    replace,
    served,
)

pytestmark = pytest.mark.slow
# What a person could read about a run. The account is masked.
ACCOUNT = "123456789012"
UNKNOWN = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model-package/my-model/9"
# Trains long enough to be handed over.
LONG = "early_stopping_rounds=2000 num_boost_round=2000"
PARTS = '" --at-most 0.0${{ matrix.part }}'

# Pull requests.


@pytest.fixture(scope="session")
def pulls(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell of a change that the gate stops, and of an unformatted one from a fork."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("pulls")
        repo = committed(cookies_session, template, folder)
        hub, story = hub_for(folder), Story()
        git(repo.path, "push", "--quiet", str(hub.origin), "main")
        hub.machine |= {
            "PYTEST_ADDOPTS": FEW_TESTS,
            # Each job still has its own machine.
            "MYPY_CACHE_DIR": str(mypy_cache(tmp_path_factory, repo, folder)),
        }
        comments = Comments(lambda token: hub.tokens[token].get("pull-requests") == "write")
        with served(comments):
            hub.api_url = comments.url
            git(repo.path, "switch", "--quiet", "--create", "stricter")
            replace(repo, "mlops.yaml", "threshold: 0.95", "threshold: 1")
            commit(repo, "Want more")
            story.runs["stopped"] = hub.pull_request(repo.path, 7)
            story.seen["comments"] = list(comments.bodies)
            git(repo.path, "switch", "--quiet", "--create", "untidy", "main")
            replace(repo, "mlops.yaml", "max_depth: 5", "max_depth: 4")
            (repo.path / "model" / "untidy.py").write_text("x = {  }\n")
            commit(repo, "Be untidy")
            story.runs["fork"] = hub.pull_request(repo.path, 8, fork="else/my-model")
            story.seen["comments of forks"] = comments.bodies[len(story.seen["comments"]) :]
        return story

    return once(tmp_path_factory, "pulls", tell)


@pytest.mark.long
def test_a_pull_request_is_linted_and_tested(pulls: Story) -> None:
    check = pulls.run("stopped").job("check")
    assert check.result == "success", check.log
    assert "files already formatted" in check.step("Lint").log
    assert re.search(r"\d passed", check.step("Test").log), check.log


@pytest.mark.long
def test_a_pull_request_starts_no_other_workflow(pulls: Story) -> None:
    assert {name: [run.workflow for run in runs] for name, runs in pulls.runs.items()} == {
        "stopped": ["ci"],
        "fork": ["ci"],
    }


@pytest.mark.long
def test_a_pull_request_that_the_gate_stops_fails_and_still_gets_its_comment(
    pulls: Story,
) -> None:
    run = pulls.run("stopped")
    review = run.job("review")
    assert (run.conclusion, review.result) == ("failure", "failure"), review.log
    assert [step.outcome for step in review.steps][-2:] == ["failure", "success"], review.log
    [comment] = pulls.seen["comments"]
    assert review.summary.strip() in comment
    assert "mlops review of my-model" in comment and "auc" in comment


@pytest.mark.long
def test_a_review_compares_with_the_base_as_it_is(pulls: Story) -> None:
    for name in ("stopped", "fork"):
        run = pulls.run(name)
        base = run.event.payload["pull_request"]["base"]["sha"]
        assert f"base       {base}" in run.job("review").log


@pytest.mark.long
def test_a_pull_request_that_lint_stops_is_red_and_not_tested(pulls: Story) -> None:
    run = pulls.run("fork")
    check = run.job("check")
    assert (run.conclusion, check.result) == ("failure", "failure")
    assert "untidy.py" in check.step("Lint").log
    assert check.step("Test").outcome == "skipped"


@pytest.mark.long
def test_a_fork_s_pull_request_is_reviewed_and_its_comment_is_left_to_the_summary(
    pulls: Story,
) -> None:
    review = pulls.run("fork").job("review")
    assert review.result == "success", review.log
    assert "auc" in review.summary
    assert "see the summary" in review.step("Comment").log
    assert pulls.seen["comments of forks"] == []


# Builds and deployments.


@pytest.fixture(scope="session")
def life(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell of a repo that signs in by OpenID Connect, from its first push on."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("life")
        with connected(cookies_session, template, folder, "oidc") as here:
            return tell_life(here)

    return once(tmp_path_factory, "life", tell)


@pytest.fixture(scope="session")
def long_life(
    cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Story:
    """Tell of the same repo, and of what comes later and takes longer."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("long-life")
        with connected(cookies_session, template, folder, "oidc") as here:
            story = tell_life(here)
            tell_handovers(here, story)
            tell_two_approvals(here, story)
            return story

    return once(tmp_path_factory, "long-life", tell)


def tell_life(here: Connected) -> Story:
    repo, hub, story = here.repo, here.hub, Story()
    story.runs["first push"] = hub.push(repo.path)
    story.seen["versions"] = here.versions()
    (repo.path / "README.md").write_text("Another text.\n")
    commit(repo, "Say it otherwise")
    story.runs["other push"] = hub.push(repo.path)
    assert here.versions() == story.seen["versions"]

    story.runs["not approved"] = [here.deploy(1)]
    here.mlops("approve", "1")
    story.runs["other commit"] = [here.deploy(1, commit="b" * 40)]
    story.runs["approved"] = [here.deploy(1)]
    story.seen["asked"] = list(here.asked)
    story.seen["sample"] = here.mlops("smoke", "production")

    here.answer = False
    story.runs["refused"] = [here.deploy(1)]
    here.answer = True
    story.runs["gate"] = [hub.dispatch("build", {"set": "GateThreshold=1.5"})]

    version = here.copy_of_version_1()
    here.mlops("approve", str(version))
    asked = len(here.asked)
    story.runs["broken"] = [here.deploy(version)]
    story.seen["asked for broken"] = here.asked[asked:]
    story.seen["sample after"] = here.mlops("smoke", "production")

    git(repo.path, "switch", "--quiet", "--create", "feature")
    git(repo.path, "push", "--quiet", str(hub.origin), "feature")
    story.runs["branch"] = [hub.dispatch("build", {}, branch="feature")]
    git(repo.path, "switch", "--quiet", "main")
    training = hub.environments["training"].variables
    kept = dict(training)
    training.clear()
    story.runs["no role"] = [hub.dispatch("build", {})]
    training |= kept
    return story


def tell_handovers(here: Connected, story: Story) -> None:
    """Make staging larger, and train for longer than a job follows."""
    repo, hub = here.repo, here.hub
    # The broken version would be the champion.
    here.mlops("reject", "2")
    replace(repo, "infra/staging.json", '"InstanceCount": 1', '"InstanceCount": 2')
    commit(repo, "Make staging larger")
    hub.push(repo.path)
    story.runs["other size"] = [here.deploy(1, commit="")]
    with here.account() as aws:
        story.seen["instances"] = instances(aws)
    # Minutes become moments, more of them from part to part.
    replace(repo, ".github/workflows/build.yml", "run --at-most 50", "run --at-most 0")
    replace(repo, ".github/workflows/build.yml", '" --at-most 50', PARTS)
    commit(repo, "Follow for moments")
    story.runs["tiny push"] = hub.push(repo.path)
    story.runs["handed over"] = [hub.dispatch("build", {"set": LONG})]
    story.seen["versions after"] = here.versions()
    # Trained again: from the cache it would be over before it is followed.
    late = f"{LONG} max_depth=4 GateThreshold=1.5"
    story.runs["handed over in vain"] = [hub.dispatch("build", {"set": late})]


def tell_two_approvals(here: Connected, story: Story) -> None:
    """Approve two versions; the reviewer of the first answers when the second is in production."""
    code = here.repo.text("model/inference.py")
    versions = [here.copy_of_version_1(f"{code}\n# {number}\n") for number in range(2)]
    for version in versions:
        here.mlops("approve", str(version))

    def later_first() -> bool:
        here.hub.environments["production"].reviewer = reviewer
        story.runs["later"] = [here.deploy(versions[1])]
        return True

    reviewer = here.hub.environments["production"].reviewer
    here.hub.environments["production"].reviewer = later_first
    story.runs["earlier"] = [here.deploy(versions[0])]
    story.runs["approved again"] = [here.deploy(versions[0])]
    # GitHub's main with another history than the version's commit.
    github = here.hub.mirror
    assert github is not None
    merged, tree = git(github, "rev-parse", "main"), git(github, "rev-parse", "main^{tree}")
    other = git(github, "commit-tree", tree, "-m", "Another history")
    git(github, "update-ref", "refs/heads/main", other)
    unseen = here.copy_of_version_1(f"{code}\n# unseen\n")
    here.mlops("approve", str(unseen))
    story.runs["never merged"] = [here.deploy(unseen)]
    git(github, "update-ref", "refs/heads/main", merged)


def instances(aws: Any) -> int:
    """Return the instances of the endpoint in staging, as it was last configured."""
    name = aws.sagemaker.describe_endpoint(EndpointName="my-model-staging")["EndpointConfigName"]
    found = aws.sagemaker.describe_endpoint_config(EndpointConfigName=name)
    return int(found["ProductionVariants"][0]["InitialInstanceCount"])


def test_a_push_trains_judges_and_registers_and_the_summary_says_so(life: Story) -> None:
    run = life.run("first push")
    assert run.workflow == "build" and run.conclusion == "success", run.log
    assert run.job("train").outputs["status"] == "Succeeded"
    assert re.search(r"\*\*Registered version 1\*\* .*: `auc 0\.\d+", run.job("train").summary)
    assert run.job("follow").result == "skipped"


def test_a_registered_version_names_the_commit_that_was_pushed(life: Story) -> None:
    [version] = life.seen["versions"].values()
    assert version["commit"] == life.run("first push").event.sha


def test_a_push_that_changes_no_model_trains_nothing(life: Story) -> None:
    assert_trained_nothing(life, "other push")


def assert_trained_nothing(life: Story, name: str) -> None:
    trained = life.run("first push").job("train").outputs["execution"]
    run = life.run(name)
    assert run.conclusion == "success", run.log
    said = f"holds what execution {trained} (version 1) was trained from"
    assert said in run.job("train").summary
    assert run.job("train").outputs["execution"] == ""
    assert run.job("follow").result == "skipped"


@pytest.mark.long
def test_a_push_that_changes_a_workflow_trains_nothing(long_life: Story) -> None:
    assert_trained_nothing(long_life, "tiny push")


def test_a_build_that_the_gate_stops_is_red_and_its_summary_says_why(life: Story) -> None:
    run = life.run("gate")
    train = run.job("train")
    assert (run.conclusion, train.result) == ("failure", "failure"), run.log
    assert [step.outcome for step in train.steps[-2:]] == ["failure", "skipped"]
    assert re.search(r"QualityGate: auc 0\.\d+ .*wanted at least 1\.5", train.summary)
    assert run.job("follow").result == "skipped"


@pytest.mark.long
def test_a_long_execution_is_handed_over_part_by_part_to_its_end(long_life: Story) -> None:
    run = long_life.run("handed over")
    assert run.conclusion == "success", run.log
    train, *parts = run.jobs
    assert train.outputs["status"] == "Executing" and len(parts) == 7
    assert "mlops follow" in train.summary
    assert "mlops follow" in parts[0].summary
    assert "Registered version 3" in parts[-1].summary
    assert set(long_life.seen["versions after"]) == {1, 2, 3}


@pytest.mark.long
def test_a_long_execution_that_fails_ends_its_last_part_red_and_no_other_is_tried(
    long_life: Story,
) -> None:
    run = long_life.run("handed over in vain")
    results = [job.result for job in run.jobs]
    assert run.conclusion == "failure", run.log
    assert results[0] == "success" and results.count("failure") == 1
    failed = results.index("failure")
    assert set(results[failed + 1 :]) <= {"cancelled"}
    assert "wanted at least 1.5" in run.jobs[failed].summary


def test_an_approved_version_goes_to_staging_and_after_approval_to_production(
    life: Story,
) -> None:
    run = life.run("approved")
    assert run.conclusion == "success", run.log
    assert list(run.results) == ["Staging", "Production"]
    for stage in ("staging", "production"):
        assert f"{stage} works" in run.job(stage).step("Test the endpoint").log
    assert life.seen["asked"] == ["production"]
    assert run.title.startswith("Deploy arn:aws:sagemaker:")


@pytest.mark.parametrize(
    ("name", "why"),
    [("not approved", "not Approved"), ("other commit", "was trained from commit")],
)
def test_what_may_not_be_deployed_is_stopped_before_it_reaches_staging(
    life: Story, name: str, why: str
) -> None:
    assert_stopped_before_staging(life.run(name), why)


@pytest.mark.long
def test_a_commit_that_was_never_merged_is_not_deployed(long_life: Story) -> None:
    assert_stopped_before_staging(long_life.run("never merged"), "is not on main")


def assert_stopped_before_staging(run: Run, why: str) -> None:
    assert run.conclusion == "failure"
    assert run.results == {"Staging": "failure", "Production": "skipped"}
    staging = run.job("staging")
    assert why in staging.step("Check the version").log, run.log
    assert staging.step("Deploy").outcome == "skipped"


@pytest.mark.long
def test_a_changed_stage_file_reaches_its_stage_by_a_run_without_training(
    long_life: Story,
) -> None:
    run = long_life.run("other size")
    assert run.conclusion == "success", run.log
    assert "EndpointConfig" in run.job("staging").step("Deploy").log
    assert "runs version 1" in run.job("staging").step("Deploy").log
    assert long_life.seen["instances"] == 2


@pytest.mark.long
def test_of_two_approvals_the_earlier_does_not_follow_the_later(long_life: Story) -> None:
    """Its reviewer answers only after the later one has reached production."""
    earlier, later = long_life.run("earlier"), long_life.run("later")
    assert later.conclusion == "success", later.log
    assert earlier.results == {"Staging": "success", "Production": "failure"}, earlier.log
    said = earlier.job("production").step("Deploy").log
    assert "version 4 is superseded by version 5, approved later" in said
    assert earlier.job("production").step("Test the endpoint").outcome == "skipped"
    assert long_life.run("approved again").conclusion == "success"


def test_a_reviewer_who_refuses_keeps_production_as_it_is(life: Story) -> None:
    run = life.run("refused")
    assert run.results == {"Staging": "success", "Production": "failure"}
    assert run.job("production").steps == () and run.conclusion == "failure"


def test_a_model_that_cannot_be_deployed_never_gets_near_production(life: Story) -> None:
    """One that answers wrongly is for test_loop.py."""
    run = life.run("broken")
    stages = {"Staging": "failure", "Production": "skipped"}
    assert run.results == stages, run.log
    assert run.job("staging").step("Deploy").outcome == "failure", run.log
    assert life.seen["asked for broken"] == [], "no reviewer is asked about what has failed"


def test_production_answers_all_the_while(life: Story) -> None:
    for name in ("sample", "sample after"):
        assert "version 1" in life.seen[name] and "production works" in life.seen[name]


def test_another_branch_is_given_neither_role_nor_key(life: Story) -> None:
    train = life.run("branch").job("train")
    assert (train.result, train.steps) == ("failure", ())
    assert "feature is not allowed to deploy to training" in train.log


def test_nothing_runs_if_the_sign_in_to_aws_fails(life: Story) -> None:
    train = life.run("no role").job("train")
    assert train.step("Sign in to AWS").outcome == "failure", train.log
    assert train.steps[-1].outcome == "skipped"


@pytest.fixture(scope="session")
def keyed(cookies_session: Any, template: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Tell of a repo that signs in with its key, and then with one that AWS does not know."""

    def tell() -> Story:
        folder = tmp_path_factory.mktemp("keyed")
        with connected(cookies_session, template, folder, "iam-user") as here:
            git(here.repo.path, "push", "--quiet", str(here.hub.origin), "main")
            commit = git(here.repo.path, "rev-parse", "HEAD")
            story, unknown = Story(), {"model-package-arn": UNKNOWN, "commit": commit}
            story.runs["its key"] = [here.hub.dispatch("deploy", unknown)]
            here.hub.environments["staging"].secrets["AWS_ACCESS_KEY_ID"] = "AKIAGONE000000000000"
            story.runs["other key"] = [here.hub.dispatch("deploy", unknown)]
            return story

    return once(tmp_path_factory, "keyed", tell)


def test_the_key_signs_in_to_the_project_s_role(keyed: Story) -> None:
    staging = keyed.run("its key").job("staging")
    assert staging.step("Sign in to AWS").outcome == "success", staging.log
    assert "version 9" in staging.step("Check the version").log


def test_a_key_that_aws_does_not_know_stops_at_the_sign_in(keyed: Story) -> None:
    run = keyed.run("other key")
    assert run.results == {"Staging": "failure", "Production": "skipped"}
    assert run.job("staging").step("Sign in to AWS").outcome == "failure"


@pytest.mark.long
def test_a_key_is_enough_from_the_first_push_to_production(
    cookies: Any, template: Path, tmp_path: Path
) -> None:
    with connected(cookies, template, tmp_path, "iam-user") as here:
        [build] = here.hub.push(here.repo.path)
        assert build.conclusion == "success", build.log
        here.mlops("approve", "1")
        deployed = here.deploy(1)
        assert set(deployed.results.values()) == {"success"}, deployed.log


def test_each_way_to_sign_in_has_its_story() -> None:
    assert SIGN_INS == ["oidc", "iam-user"]


LONG_STORIES = [pytest.param(name, marks=pytest.mark.long) for name in ("pulls", "long_life")]


@pytest.mark.parametrize("name", ["life", "keyed", *LONG_STORIES])
def test_no_job_leaves_a_process_behind(name: str, request: pytest.FixtureRequest) -> None:
    story: Story = request.getfixturevalue(name)
    for job in story.jobs():
        assert job.orphans == (), job.log


@pytest.mark.parametrize("name", ["life", "keyed", *LONG_STORIES[1:]])
def test_no_log_and_no_summary_shows_the_account(name: str, request: pytest.FixtureRequest) -> None:
    story: Story = request.getfixturevalue(name)
    for job in story.jobs():
        assert ACCOUNT not in job.log + job.summary, job.log
