"""The rendered workflows, judged by GitHub's schema, actionlint, zizmor and what they promise.

Knows the format of workflows; what they do when they run is for test_workflows_run.py.
"""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from rendering import ROOT, Bake, Rendered, baked
from workflow_judges import (
    NAMES,
    PINS,
    SIGN_INS,
    actionlint,
    assert_mlops_takes,
    load,
    path,
    schema,
    zizmor,
)

READ = {"contents": "read"}
# Beside what signing in by OpenID Connect needs.
PERMISSIONS = {
    ("ci", "check"): READ,
    ("ci", "review"): READ | {"pull-requests": "write"},
    ("build", "train"): READ,
    ("build", "follow"): READ,
    ("deploy", "staging"): READ,
    ("deploy", "production"): READ,
}
BAD = """\
name: bad
on: pull_request
jobs:
  bad:
    runs-on: ubuntu-24.04
    steps:
      - run: echo ${{ github.event.pull_request.title }} $unquoted
"""


@pytest.fixture(scope="session", params=SIGN_INS)
def repo(request: pytest.FixtureRequest, cookies_session: Any, template: Path) -> Rendered:
    """Return a render for each way to sign in. Do not write into it."""
    return baked(cookies_session, template, {"github_sign_in": request.param})


@pytest.fixture(scope="session")
def oidc(repo: Rendered) -> bool:
    mlops = tomllib.loads(repo.text("pyproject.toml"))["tool"]["mlops"]
    return bool(mlops["sign-in"] == "oidc")


def jobs(repo: Rendered) -> dict[tuple[str, str], dict[str, Any]]:
    return {(name, job): body for name in NAMES for job, body in load(repo, name)["jobs"].items()}


def steps(repo: Rendered) -> list[tuple[str, dict[str, Any]]]:
    """Return each step with `workflow/job`."""
    return [(f"{w}/{j}", step) for (w, j), job in jobs(repo).items() for step in job["steps"]]


def test_there_are_three_workflows(repo: Rendered) -> None:
    files = {name for name in repo.files() if name.startswith(".github/workflows/")}
    assert files == {path(name) for name in NAMES}


@pytest.mark.slow
def test_the_workflows_fit_github_s_schema(repo: Rendered) -> None:
    done = schema(repo.path, "github-workflows", *map(path, NAMES))
    assert done.code == 0, done.out
    done = schema(repo.path, "dependabot", ".github/dependabot.yml")
    assert done.code == 0, done.out


def test_actionlint_and_shellcheck_find_nothing(repo: Rendered) -> None:
    done = actionlint(repo.path, *map(path, NAMES))
    assert (done.code, done.out) == (0, ""), done.out + done.err


def test_zizmor_finds_nothing_however_pedantic(repo: Rendered) -> None:
    done = zizmor(repo.path / ".github")
    assert done.code == 0 and "No findings to report" in done.out, done.out + done.err


def test_no_checker_is_told_to_look_away(repo: Rendered) -> None:
    for name, content in repo.files().items():
        if name.startswith(".github/"):
            assert not re.search(rb"zizmor|actionlint|shellcheck|noqa", content), name


@pytest.mark.slow
def test_the_judges_see_what_is_wrong(tmp_path: Path) -> None:
    """So that their silence means something."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    (folder / "bad.yml").write_text(BAD)
    said = actionlint(tmp_path, folder / "bad.yml")
    assert said.code == 1 and "untrusted" in said.out and "SC2086" in said.out, said.out
    assert zizmor(tmp_path).code != 0
    (folder / "bad.yml").write_text(BAD.replace("runs-on", "runs-at"))
    assert schema(tmp_path, "github-workflows", folder / "bad.yml").code == 1


@pytest.mark.slow
def test_the_template_s_own_workflow_passes_the_same_judges() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    assert files
    for done in (actionlint(ROOT, *files), zizmor(ROOT / ".github")):
        assert done.code == 0, done.out + done.err
    assert schema(ROOT, "github-workflows", *files).code == 0


def test_actions_are_pinned_by_a_known_commit_with_its_tag_beside_it(repo: Rendered) -> None:
    for name in NAMES:
        for line in re.findall(r"^.*\buses:.*$", repo.text(path(name)), re.MULTILINE):
            found = re.search(r"uses: ([\w./-]+)@([0-9a-f]{40}) # (v[0-9.]+)$", line)
            assert found, line
            assert (found[3], found[2]) == PINS[found[1]], line


def test_the_template_pins_the_same_commits_for_itself() -> None:
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        for name, commit, tag in re.findall(r"uses: (\S+)@(\S+) # (\S+)", file.read_text()):
            assert (tag, commit) == PINS[name]


def test_each_job_may_do_only_what_it_needs(repo: Rendered, oidc: bool) -> None:
    for name in NAMES:
        assert load(repo, name)["permissions"] == {}
    for key, job in jobs(repo).items():
        signs_in = key[0] != "ci" and oidc
        wanted = PERMISSIONS[key] | ({"id-token": "write"} if signs_in else {})
        assert job["permissions"] == wanted, key


def test_no_checkout_leaves_its_token_behind(repo: Rendered) -> None:
    checkouts = [step for _, step in steps(repo) if "checkout@" in step.get("uses", "")]
    assert len(checkouts) == len(PERMISSIONS)
    assert all(step["with"]["persist-credentials"] == "false" for step in checkouts)


def test_no_script_contains_an_expression(repo: Rendered) -> None:
    for place, step in steps(repo):
        assert "${{" not in step.get("run", ""), place
        assert "shell" not in step, place


def test_every_step_is_one_command_that_a_person_can_run(repo: Rendered) -> None:
    words = [shlex.split(step["run"], comments=False) for _, step in steps(repo) if "run" in step]
    assert words
    [phony] = re.findall(r"^\.PHONY: (.+)$", repo.text("Makefile"), re.MULTILINE)
    mlops = []
    for command in words:
        assert not set("".join(command)) & set(";&|<>()`\n"), command
        if command[0] == "make":
            assert command[1] in phony.split(), command
            assert all(re.fullmatch(r"[A-Z]+=\w+", word) for word in command[2:]), command
        else:
            assert command[0] == ".venv/bin/mlops", command
            mlops.append(command[1:])
    assert_mlops_takes(mlops)


@pytest.mark.parametrize(
    "words", ["no-such", "run --no-such", "deploy", "run --at-most x"], ids=lambda words: words
)
def test_a_missing_command_is_noticed(words: str) -> None:
    with pytest.raises(AssertionError):
        assert_mlops_takes([words.split()])


def test_region_and_project_stand_in_the_environment_of_each_workflow(bake: Bake) -> None:
    # A project called null is a text, not a missing one.
    repo = bake(aws_region="eu-central-1", sagemaker_project="null")
    for name in NAMES:
        head = repo.text(path(name)).partition("jobs:")[0]
        environment = yaml.safe_load(head)["env"]
        assert environment["AWS_REGION"] == "eu-central-1"
        assert environment["PROJECT"] == "null"
        rest = repo.text(path(name)).replace('PROJECT: "null"', "").replace("eu-central-1", "", 1)
        assert "eu-central-1" not in rest and "null" not in rest, "said in one place only"


def test_every_job_ends_before_its_credentials_do(repo: Rendered) -> None:
    for key, job in jobs(repo).items():
        minutes = int(job["timeout-minutes"])
        assert 0 < minutes < 60, key
        for step in job["steps"]:
            followed = re.search(r"--at-most (\d+)", step.get("run", ""))
            assert not followed or int(followed[1]) <= minutes - 5, key


def test_every_job_runs_on_a_named_version_of_ubuntu(repo: Rendered) -> None:
    assert {job["runs-on"] for job in jobs(repo).values()} == {"ubuntu-24.04"}


def test_credentials_come_after_the_setup_and_only_where_they_are_needed(
    repo: Rendered, oidc: bool
) -> None:
    for key, job in jobs(repo).items():
        said = [step.get("run") or step["uses"].partition("@")[0] for step in job["steps"]]
        sign_in = "aws-actions/configure-aws-credentials"
        assert (sign_in in said) == (key[0] != "ci"), key
        if sign_in not in said:
            continue
        [setup] = [line for line in said if line.startswith("make setup ")]
        assert said.index(setup) < said.index(sign_in) < len(said) - 1, key
        given = job["steps"][said.index(sign_in)]["with"]
        assert given["aws-region"] == "${{ env.AWS_REGION }}"
        assert given["mask-aws-account-id"] == "true"
        # What the repository itself has, the workflow of any branch may read.
        assert job["environment"] == ("training" if key[0] == "build" else key[1])
        # Without a role, the action would use what a runner of one's own is signed in with.
        missing = "missing - run mlops bootstrap"
        assert given["role-to-assume"] == f"${{{{ vars.AWS_ROLE_ARN || '{missing}' }}}}"
        name = given["role-session-name"].replace("${{ env.PROJECT }}", "p" * 32)
        assert len(name.replace("${{ github.run_id }}", "9" * 14)) <= 64
        if not oidc:
            # The key may only assume the role, whose trust policy allows no session tags.
            assert given["aws-access-key-id"] == "${{ secrets.AWS_ACCESS_KEY_ID }}"
            assert given["aws-secret-access-key"] == "${{ secrets.AWS_SECRET_ACCESS_KEY }}"
            assert given["role-skip-session-tagging"] == "true"
        else:
            assert "aws-access-key-id" not in given


def test_a_pull_request_sees_no_secret(repo: Rendered) -> None:
    text = repo.text(path("ci"))
    assert set(load(repo, "ci")["on"]) == {"pull_request", "merge_group"}
    assert "secrets" not in text and "id-token" not in text
    holders = [
        step["run"] for _, step in steps(repo) if "${{ github.token }}" in str(step.get("env", ""))
    ]
    # GitHub is asked whether a version's commit was merged.
    assert holders == [".venv/bin/mlops comment --file review.md", ".venv/bin/mlops check"]
    assert text.count("github.token") == 1


def test_a_merge_queue_gets_the_answer_that_it_waits_for(repo: Rendered) -> None:
    jobs = load(repo, "ci")["jobs"]
    # A skipped job counts as passed, a workflow that does not start would be waited for.
    assert "if" not in jobs["check"]
    assert jobs["review"]["if"] == "github.event_name == 'pull_request'"


def test_a_review_that_the_gate_stops_still_gets_its_comment(repo: Rendered) -> None:
    *_, review, comment = load(repo, "ci")["jobs"]["review"]["steps"]
    assert review["run"].split()[1] == "review"
    assert comment["if"] == "${{ !cancelled() && steps.review.outcome != 'skipped' }}"
    assert "continue-on-error" not in repo.text(path("ci"))


def test_a_review_has_the_history_that_it_compares_with(repo: Rendered) -> None:
    job = load(repo, "ci")["jobs"]["review"]
    # The event's own base.sha can be older than what GitHub has merged the change into.
    assert job["steps"][0]["with"] == {"fetch-depth": "2", "persist-credentials": "false"}
    review = next(step for step in job["steps"] if "mlops review" in step.get("run", ""))
    assert "--base HEAD^1 " in review["run"]


def test_a_build_follows_what_main_changes(repo: Rendered) -> None:
    on = load(repo, "build")["on"]
    assert set(on) == {"push", "workflow_dispatch"}
    assert on["push"]["branches"] == ["main"]
    # `mlops run` decides what is new: a push can repair a build without touching the model.
    assert set(on["push"]) == {"branches"}
    out, *_, run, _ = load(repo, "build")["jobs"]["train"]["steps"]
    # A run that is started again would check out its own commit, older than what is trained by now.
    assert (out["with"]["fetch-depth"], out["with"]["ref"]) == ("0", "main")
    # A person, drift and a schedule train in any case.
    assert run["env"]["MLOPS_IF_CHANGED"] == "${{ github.event_name == 'push' }}"
    inputs = on["workflow_dispatch"]["inputs"]
    assert {name: run["env"][f"MLOPS_{name.upper()}"] for name in inputs} == {
        name: f"${{{{ inputs.{name} }}}}" for name in ("set", "reason")
    }


def test_an_execution_longer_than_credentials_is_handed_over(repo: Rendered) -> None:
    train, follow = (load(repo, "build")["jobs"][name] for name in ("train", "follow"))
    assert set(train["outputs"]) == {"execution", "status"}
    assert follow["needs"] == "train"
    assert follow["if"] == "needs.train.outputs.status == 'Executing'"
    assert follow["strategy"]["max-parallel"] == "1"
    last = follow["steps"][-2]
    parts = follow["strategy"]["matrix"]["part"]
    assert last["env"] == {
        "EXECUTION": "${{ needs.train.outputs.execution }}",
        # The last one is never green without a result.
        "MLOPS_UNFINISHED_OK": f"${{{{ matrix.part != {parts[-1]} }}}}",
    }
    hours = len(parts) * 50 / 60
    limits = yaml.safe_load(repo.text("mlops.yaml"))["compute"].values()
    assert hours + 50 / 60 > sum(job["max_hours"] for job in limits)


def test_a_workflow_that_is_cancelled_stops_its_execution(repo: Rendered) -> None:
    """GitHub signals a step's shell, which does not tell the command, and then kills both."""
    train, follow = (load(repo, "build")["jobs"][name]["steps"] for name in ("train", "follow"))
    assert [step["id"] for step in train if "id" in step] == ["run"]
    conditions = ("cancelled() && steps.run.outputs.execution", "cancelled()")
    for steps, condition in zip((train, follow), conditions, strict=True):
        assert steps[-1]["if"] == f"${{{{ {condition} }}}}"
        assert steps[-1]["run"] == '.venv/bin/mlops stop "$EXECUTION"'
    assert train[-1]["env"] == {"EXECUTION": "${{ steps.run.outputs.execution }}"}
    assert follow[-1]["env"] == {"EXECUTION": "${{ needs.train.outputs.execution }}"}


def test_a_deployment_needs_version_and_commit_and_starts_only_on_dispatch(repo: Rendered) -> None:
    workflow = load(repo, "deploy")
    assert set(workflow["on"]) == {"workflow_dispatch"}
    inputs = workflow["on"]["workflow_dispatch"]["inputs"]
    # GitHub refuses an input that it does not know, and the trigger's function sends both.
    assert set(inputs) == {"model-package-arn", "commit"}
    assert inputs["model-package-arn"]["required"] == "true"
    assert "required" not in inputs["commit"]
    assert workflow["env"]["MODEL_PACKAGE_ARN"] == "${{ inputs.model-package-arn }}"
    assert "COMMIT" not in workflow["env"]


def test_a_deployment_runs_nothing_but_main_s_code(repo: Rendered) -> None:
    """No expression chooses what is checked out, and the commit is only compared."""
    deploy = load(repo, "deploy")["jobs"]
    assert list(deploy) == ["staging", "production"]
    for job in deploy.values():
        [out] = [step for step in job["steps"] if "checkout@" in step.get("uses", "")]
        assert out["with"] == {"ref": "main", "persist-credentials": "false"}
    text = repo.text(path("deploy"))
    assert text.count("inputs.commit") == 1
    check = next(step for step in deploy["staging"]["steps"] if step.get("id") == "check")
    assert check["env"]["COMMIT"] == "${{ inputs.commit }}"


def test_the_version_is_checked_first_of_all_after_the_sign_in(repo: Rendered) -> None:
    names = [step["name"] for step in load(repo, "deploy")["jobs"]["staging"]["steps"]]
    assert names.index("Check the version") == names.index("Sign in to AWS") + 1


def test_production_waits_for_staging_and_its_reviewers(repo: Rendered) -> None:
    deploy = load(repo, "deploy")["jobs"]
    assert "needs" not in deploy["staging"]
    assert deploy["production"]["needs"] == "staging"
    for stage in ("staging", "production"):
        job = deploy[stage]
        # With its own condition, a job can run after a failure, or be skipped and look green.
        assert "if" not in job and "continue-on-error" not in job
        assert job["environment"] == stage
        check = [".venv/bin/mlops check"] if stage == "staging" else []
        assert [step["run"] for step in job["steps"] if "run" in step] == [
            "make setup FOR=deploy",
            *check,
            f".venv/bin/mlops deploy {stage} --at-most 50",
            f".venv/bin/mlops smoke {stage}",
        ]
        assert not any("if" in step or "continue-on-error" in step for step in job["steps"])


def test_no_job_that_waits_for_its_reviewer_holds_up_another(repo: Rendered) -> None:
    """GitHub takes a group before it asks for approval, and cancels all but one that wait."""
    workflow = load(repo, "deploy")
    assert not any("concurrency" in job for job in workflow["jobs"].values())
    assert workflow["concurrency"]["group"] == "deploy-${{ github.run_id }}"
    assert workflow["concurrency"]["cancel-in-progress"] == "false"
    pushes = "${{ github.event_name == 'push' && 'build' || github.run_id }}"
    train = load(repo, "build")["jobs"]["train"]["concurrency"]
    assert train == {"group": pushes, "cancel-in-progress": "false"}


def test_production_knows_when_its_run_began(repo: Rendered) -> None:
    deploy = load(repo, "deploy")["jobs"]
    assert deploy["staging"]["outputs"] == {"started": "${{ steps.check.outputs.started }}"}
    [step] = [step for step in deploy["production"]["steps"] if step["name"] == "Deploy"]
    assert step["env"] == {"DEPLOYMENT_STARTED": "${{ needs.staging.outputs.started }}"}
    # In staging every version has its turn.
    assert "env" not in next(s for s in deploy["staging"]["steps"] if s["name"] == "Deploy")


def test_nothing_but_mlops_runs_with_credentials(repo: Rendered) -> None:
    """Set-up, lint and tests run code of packages and of branches."""
    for key, job in jobs(repo).items():
        said = [step.get("run") or step["uses"].partition("@")[0] for step in job["steps"]]
        sign_in = "aws-actions/configure-aws-credentials"
        after = said[said.index(sign_in) + 1 :] if sign_in in said else []
        assert all(line.startswith(".venv/bin/mlops ") for line in after), key
        assert not any(name.startswith("AWS_ACCESS") for name in job.get("env", {})), key


def test_dependabot_keeps_the_actions_fresh(repo: Rendered) -> None:
    [update] = yaml.safe_load(repo.text(".github/dependabot.yml"))["updates"]
    assert (update["package-ecosystem"], update["directory"]) == ("github-actions", "/")


def test_both_ways_to_sign_in_differ_in_nothing_else(bake: Bake) -> None:
    first, second = (bake(github_sign_in=choice) for choice in SIGN_INS)
    for name in NAMES:
        lines = [set(repo.text(path(name)).splitlines()) for repo in (first, second)]
        for line in lines[0] ^ lines[1]:
            assert re.search(r"id-token|role-|aws-(secret-)?access-key", line), line
