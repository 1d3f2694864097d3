"""The reader of workflows itself: what it runs as GitHub does, and that it refuses all it does not
know.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from workflow_actions import checkout, configure_aws_credentials, installed
from workflow_expressions import Known, Unsupported, evaluate, holds, interpolate
from workflow_file import parse
from workflow_reader import (
    ActionFailed,
    Environment,
    Refused,
    Repository,
    Run,
    Work,
    git,
    pairs,
)

COMMIT = "0" * 40
CHECKOUT, SIGN_IN, FAILING = (f"{name}@{COMMIT}" for name in ("some/checkout", "some/in", "a/b"))
HEAD = """\
name: it
on:
  workflow_dispatch:
    inputs:
      word: {type: string}
permissions: {contents: read}
"""
ONE = """\
jobs:
  one:
    runs-on: ubuntu-24.04
    steps:
"""
ROLE = "arn:aws:iam::123456789012:role/churn-github"
GIVEN = {"aws-region": "eu-west-1", "role-to-assume": ROLE, "role-session-name": "churn-1"}


@pytest.fixture
def hub(tmp_path: Path) -> Repository:
    """Return an empty repository whose minutes last a second."""
    origin = tmp_path / "origin.git"
    origin.mkdir()
    git(origin, "init", "--quiet", "--bare", "--initial-branch=main")
    folder = tmp_path / "machine"
    folder.mkdir()

    def failing(work: Work, given: Mapping[str, str]) -> None:
        raise ActionFailed(f"no {given['what']}")

    actions = {
        CHECKOUT: checkout(installed(tmp_path / "venv")),
        SIGN_IN: configure_aws_credentials(lambda *_: dict.fromkeys(SESSION, "s3cret")),
        FAILING: failing,
    }
    return Repository(origin, "acme/churn", folder, actions, minute=1)


SESSION = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
Clone = Callable[..., Path]


@pytest.fixture
def clone(hub: Repository, tmp_path: Path) -> Clone:
    """Return a function that commits files in a clone and returns it; nothing is pushed."""
    folder = tmp_path / "clone"
    folder.mkdir()
    git(folder, "init", "--quiet", "--initial-branch=main")

    def commit(**files: str) -> Path:
        for name, text in files.items():
            file = folder / (f".github/workflows/{name}.yml" if name == "it" else name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        git(folder, "add", ".")
        git(folder, "commit", "--quiet", "--allow-empty", "--message", "change")
        return folder

    return commit


Play = Callable[..., Run]


@pytest.fixture
def play(hub: Repository, clone: Clone) -> Play:
    """Return a function that runs a workflow started by hand."""

    def dispatch(text: str, **inputs: str) -> Run:
        hub.push(clone(it=text))
        return hub.dispatch("it", inputs)

    return dispatch


def steps(*texts: str) -> str:
    """Return a workflow of one job with these steps, each in YAML's flow style."""
    return HEAD + ONE + "".join(f"      - {text}\n" for text in texts)


def outcomes(run: Run) -> list[str]:
    return [step.outcome for step in run.jobs[0].steps]


# Expressions.

CONTEXTS = {
    "needs": Known(train=Known(result="success", outputs=Known(status="Executing"))),
    "vars": {"EMPTY": "", "ONE": "1"},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'it''s'", "it's"),
        ("vars.ONE == 1", True),
        ("vars.EMPTY == vars.NOTHING", True),
        ("vars.NOTHING == 0", True),
        ("'x' == 0", False),
        ("'a' == 'A'", True),
        ("'a' != 'A'", False),
        ("needs.train.outputs.status == 'executing'", True),
        ("!vars.EMPTY && 'full'", "full"),
        ("vars.EMPTY || 'other'", "other"),
        ("!(true && false) == true", True),
        ("null == false", True),
        ("false || true && false", False),
        ("vars.NOTHING.at.all", None),
    ],
)
def test_expressions_have_github_s_values(text: str, value: object) -> None:
    assert evaluate(text, CONTEXTS) == value


@pytest.mark.parametrize(
    "text",
    [
        "contains('a', 'b')",
        "vars['ONE']",
        "1 < 2",
        "needs.*.result",
        "secrets.KEY",
        "needs.train.outputs.statsu",
        "needs.build",
        "'open",
        "vars.",
        "(true",
        "true false",
        "",
        "success(1)",
    ],
)
def test_an_unknown_expression_is_refused(text: str) -> None:
    with pytest.raises(Unsupported):
        evaluate(text, CONTEXTS, {"success": lambda: True})


def test_a_text_is_put_together_from_its_expressions() -> None:
    contexts = {"vars": {"ONE": "1"}, "matrix": Known(part=3)}
    assert interpolate("${{ vars.ONE }} of ${{ matrix.part }}", contexts) == "1 of 3"
    assert interpolate("${{ vars.NOTHING }}${{ true }}", contexts) == "true"
    for text in ("${{ vars.ONE", "${{ vars }}"):
        with pytest.raises(Unsupported):
            interpolate(text, contexts)


def test_a_condition_without_a_status_holds_only_after_success() -> None:
    for success in (True, False):
        functions = {"success": success.__bool__, "always": lambda: True}
        assert holds("vars.ONE == '1'", CONTEXTS, functions) is success
        assert holds("${{ always() && vars.ONE == '1' }}", CONTEXTS, functions)
        assert not holds("${{ always() && vars.ONE == '2' }}", CONTEXTS, functions)
    with pytest.raises(Unsupported):
        holds("vars.ONE == ${{ vars.ONE }}", CONTEXTS, functions)


# Files.


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("name: it", "name: it\ndefaults: {}"),
        ("  workflow_dispatch:", "  schedule:"),
        ("{type: string}", "{type: choice}"),
        ("{contents: read}", "{contents: admin}"),
        ("{contents: read}", "{packages: read}"),
        ("permissions: {contents: read}\n", ""),
        ("ubuntu-24.04", "windows-2025"),
        ("    runs-on", "    services: {}\n    runs-on"),
        ("    runs-on", "    needs: two\n    runs-on"),
        ("    runs-on", "    needs: one\n    runs-on"),
        ("    runs-on", "    name: a\n    name: b\n    runs-on"),
        ("    runs-on", "    strategy: {matrix: {a: [1]}}\n    runs-on"),
        ("    runs-on", "    strategy: {max-parallel: 1, matrix: {a: [1], b: [1]}}\n    runs-on"),
        ("    runs-on", "    continue-on-error: true\n    runs-on"),
        ("    runs-on", "    concurrency: {queue: max}\n    runs-on"),
        ("    runs-on", "    environment: {name: a, url: b}\n    runs-on"),
        ("{run: a}", "{run: a, shell: pwsh}"),
        ("{run: a}", "{run: a, shell: bash}"),
        ("{run: a}", "{run: a, continue-on-error: true}"),
        ("{run: a}", "{run: a, with: {b: c}}"),
        ("{run: a}", "{run: a, uses: b}"),
        ("{run: a}", "{uses: actions/checkout@v7}"),
        ("{run: a}", "{name: nothing}"),
        ("{run: a}", "{run: a, id: b}\n      - {run: a, id: b}"),
    ],
)
def test_a_file_with_unknown_syntax_is_refused(right: str, wrong: str) -> None:
    text = steps("{run: a}")
    assert parse(text)
    with pytest.raises(Unsupported):
        parse(text.replace(right, wrong, 1))


def test_an_action_that_nothing_stands_in_for_is_refused(play: Play) -> None:
    with pytest.raises(Unsupported, match="nothing stands in for other/action@1"):
        play(steps(f"uses: other/action@{'1' * 40}"))


# Steps.


def test_steps_share_outputs_variables_and_path_as_files_tell(play: Play) -> None:
    run = play(
        steps(
            "{id: a, run: 'echo word=$WORD >> $GITHUB_OUTPUT', env: {WORD: '${{ inputs.word }}'}}",
            '{run: \'printf "LINES<<end\\nx\\ny\\nend\\n" >> $GITHUB_ENV; mkdir bin; '
            'printf "#!/bin/sh\\necho found" > bin/own; chmod +x bin/own; echo $PWD/bin '
            ">> $GITHUB_PATH'}",
            '{run: \'test "$LINES" = "$(printf "x\\ny")"; own; echo $GOT\', '
            "env: {GOT: '${{ steps.a.outputs.word }}'}}",
        ),
        word="hello",
    )
    assert run.conclusion == "success", run.log
    assert run.jobs[0].steps[2].log == "found\nhello"


def test_a_step_sees_github_s_variables_and_none_of_this_process(
    play: Play, hub: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OURS", "seen")
    hub.machine["NETWORK"] = "there"
    run = play(steps("{run: 'env; test -z \"$OURS\"; pwd'}"))
    log = run.jobs[0].steps[0].log
    assert run.conclusion == "success", run.log
    for line in ("CI=true", "GITHUB_REPOSITORY=acme/churn", "GITHUB_REF=refs/heads/main"):
        assert line in log.splitlines()
    assert "NETWORK=there" in log and log.endswith("work/churn/churn")
    assert "GITHUB_TOKEN" not in log


def test_the_nearest_of_three_levels_of_variables_counts(play: Play) -> None:
    text = steps("{run: 'echo $A $B $C', env: {C: step}}", "{run: 'echo $C'}")
    text = text.replace("jobs:", "env: {A: run, B: run, C: run}\njobs:")
    run = play(text.replace("    steps:", "    env: {B: job, C: job}\n    steps:"))
    assert [step.log for step in run.jobs[0].steps] == ["run job step", "job"]


def test_after_a_failure_only_those_steps_run_that_ask_for_it(play: Play) -> None:
    run = play(
        steps(
            "{run: 'false; echo no'}",
            "{run: echo no}",
            "{run: echo yes, if: always()}",
            "{run: echo yes, if: failure()}",
            "{run: echo no, if: success()}",
            "{run: echo yes, if: '${{ !cancelled() }}'}",
            "{run: echo no, if: github.ref == 'refs/heads/main'}",
        )
    )
    assert " ".join(outcomes(run)) == ("failure skipped success success skipped success skipped")
    assert run.conclusion == "failure"
    assert "no" not in run.log.replace("'false; echo no'", "").split()


def test_the_outcome_of_a_step_can_be_asked_for(play: Play) -> None:
    run = play(
        steps(
            "{run: 'exit 3', id: first}",
            "{run: 'true', id: second}",
            "{run: echo, if: \"${{ always() && steps.first.outcome == 'failure' }}\"}",
            "{run: echo, if: \"${{ always() && steps.second.outcome != 'skipped' }}\"}",
        )
    )
    assert outcomes(run) == ["failure", "skipped", "success", "skipped"]
    assert "exit code 3" in run.jobs[0].steps[0].log


def test_a_step_works_in_its_folder(play: Play) -> None:
    run = play(steps("{run: mkdir sub}", "{run: pwd, working-directory: sub}"))
    assert run.jobs[0].steps[1].log.endswith("work/churn/churn/sub")


def test_pipes_do_not_fail_as_they_do_not_in_the_default_shell(play: Play) -> None:
    assert play(steps("{run: 'false | true'}")).conclusion == "success"


@pytest.mark.parametrize("bad", ["word", "=x", "a<<end\nx"])
def test_an_output_that_github_cannot_read_fails_the_step(bad: str, play: Play) -> None:
    with pytest.raises(ValueError, match="Invalid"):
        pairs(bad)
    run = play(steps("{run: 'echo word >> $GITHUB_OUTPUT'}"))
    assert run.conclusion == "failure" and "Invalid format" in run.log


def test_github_s_own_variables_cannot_be_set(play: Play) -> None:
    with pytest.raises(Unsupported, match="GITHUB_SHA"):
        play(steps("{run: 'echo GITHUB_SHA=x >> $GITHUB_ENV'}"))


def test_an_unknown_command_in_the_log_is_refused(play: Play) -> None:
    with pytest.raises(Unsupported, match="set-output"):
        play(steps("{run: 'echo ::set-output name=a::b'}"))


def test_an_action_that_fails_fails_its_step(play: Play) -> None:
    run = play(steps(f"{{uses: {FAILING}, with: {{what: luck}}}}", "{run: echo}"))
    assert outcomes(run) == ["failure", "skipped"]
    assert run.jobs[0].steps[0].log == "Error: no luck"


def test_what_still_runs_at_the_end_of_a_job_is_stopped_and_reported(play: Play) -> None:
    run = play(steps("{run: 'setsid sleep 987 > /dev/null 2>&1 & sleep 0.3'}"))
    assert run.jobs[0].orphans == ("sleep 987",)


# Time.


def test_a_step_that_takes_too_long_fails(play: Play) -> None:
    began = time.monotonic()
    run = play(steps("{run: 'sleep 60', timeout-minutes: 0.2}", "{run: echo}"))
    assert outcomes(run) == ["failure", "skipped"] and time.monotonic() - began < 20
    assert "timed out" in run.log


def test_a_job_that_takes_too_long_is_cancelled(play: Play) -> None:
    text = steps("{run: 'sleep 60'}", "{run: echo, if: '${{ !cancelled() }}'}")
    run = play(text.replace("    steps:", "    timeout-minutes: 0.2\n    steps:"))
    assert outcomes(run) == ["cancelled", "skipped"] and run.conclusion == "cancelled"


# Masks.


def test_secrets_and_what_is_masked_are_never_shown(play: Play, hub: Repository) -> None:
    hub.secrets["KEY"] = "s3cret"
    run = play(
        steps(
            "{run: 'echo $KEY | tee -a $GITHUB_STEP_SUMMARY; echo ::add-mask::hidden', "
            "env: {KEY: '${{ secrets.KEY }}'}}",
            "{run: 'echo hidden; echo $T', env: {T: '${{ github.token }}'}}",
        )
    )
    assert run.conclusion == "success", run.log
    assert [step.log for step in run.jobs[0].steps] == ["***", "***\n***"]
    assert run.jobs[0].summary == "***\n"


def test_an_output_of_a_job_that_holds_something_masked_is_dropped(
    play: Play, hub: Repository
) -> None:
    hub.secrets["KEY"] = "s3cret"
    text = steps("{id: a, run: 'printf \"x=1\\ny=s3cret!\\n\" >> $GITHUB_OUTPUT'}")
    outputs = "    outputs: {x: '${{ steps.a.outputs.x }}', y: '${{ steps.a.outputs.y }}'}\n"
    text = text.replace("    steps:", f"{outputs}    steps:")
    text += (
        "  two:\n    needs: one\n    runs-on: ubuntu-24.04\n    steps:\n      - run: echo $GOT\n"
    )
    text += "        env: {GOT: '${{ needs.one.outputs.x }}-${{ needs.one.outputs.y }}'}\n"
    run = play(text)
    assert run.job("one").outputs == {"x": "1"}
    assert "Skip output 'y'" in run.log
    assert run.job("two").steps[0].log == "1-"


# Jobs.


def jobs(**bodies: str) -> str:
    """Return a workflow of jobs, each given by its keys beside those that all have."""
    told = "".join(
        f"  {name}:\n    runs-on: ubuntu-24.04\n{body}    steps: [{{run: {command}}}]\n"
        for name, (body, command) in (
            (name, (text.partition("|")[0], text.partition("|")[2] or "'true'"))
            for name, text in bodies.items()
        )
    )
    return f"{HEAD}jobs:\n{told}"


def test_jobs_run_after_those_they_need_and_not_after_a_failure(play: Play) -> None:
    run = play(
        jobs(
            last="    needs: [middle]\n",
            middle="    needs: first\n",
            first="|'false'",
            beside="",
            cleaner="    needs: [middle]\n    if: always()\n",
            teller="    needs: [last]\n    if: failure()\n",
        )
    )
    assert list(run.results)[-1] in ("teller", "cleaner"), "not in the order of the file"
    assert run.results == {
        "first": "failure",
        "middle": "skipped",
        "last": "skipped",
        "beside": "success",
        "cleaner": "success",
        "teller": "success",
    }
    assert run.conclusion == "failure"


def test_a_job_whose_condition_is_not_met_is_skipped_and_nothing_is_red(play: Play) -> None:
    two = "    needs: one\n    if: needs.one.result == 'failure'\n"
    run = play(jobs(one="", two=two, three="    needs: two\n"))
    assert run.results == {"one": "success", "two": "skipped", "three": "skipped"}
    assert run.conclusion == "success"


def test_a_matrix_runs_part_by_part_and_not_after_one_that_failed(play: Play) -> None:
    matrix = "    strategy: {max-parallel: 1, matrix: {part: [1, 2, 3]}}\n"
    name = "    name: part ${{ matrix.part }}\n    env: {PART: '${{ matrix.part }}'}\n"
    run = play(jobs(one=f"{matrix}{name}|'test $PART = 1'", two="    needs: one\n"))
    assert run.results == {
        "part 1": "success",
        "part 2": "failure",
        "part 3": "cancelled",
        "two": "skipped",
    }


def test_a_reviewer_is_asked_and_a_no_fails_the_job_before_its_first_step(
    play: Play, hub: Repository
) -> None:
    asked = []

    def no() -> bool:
        asked.append("production")
        return False

    hub.environments["production"] = Environment(no)
    run = play(jobs(one="    environment: staging\n", two="    environment: production\n"))
    assert run.results == {"one": "success", "two": "failure"} and asked == ["production"]
    assert run.job("two").steps == () and "rejected" in run.log and run.conclusion == "failure"


def test_an_environment_lets_only_its_branches_deploy(play: Play, hub: Repository) -> None:
    hub.environments["production"] = Environment(branches=("release/*",))
    run = play(jobs(one="    environment: production\n"))
    assert run.conclusion == "failure" and "main is not allowed" in run.log


def test_variables_and_secrets_of_an_environment_go_before_the_repository_s(
    play: Play, hub: Repository
) -> None:
    hub.variables["V"], hub.secrets["S"] = "repository", "repository"
    hub.environments["staging"] = Environment(variables={"V": "v1"}, secrets={"S": "staging"})
    env = "    env: {V: '${{ vars.V }}'}\n"
    run = play(jobs(one=f"    environment: staging\n{env}|'echo $V; echo staging'"))
    # A job's own variables are evaluated with them, too.
    assert run.job("one").steps[0].log == "v1\n***"


# Triggers.

PUSHED = (HEAD + ONE + "      - {run: echo}\n").replace(
    "  workflow_dispatch:\n    inputs:\n      word: {type: string}\n",
    "  push: {branches: [main]}\n  pull_request:\n",
)


@pytest.mark.slow
def test_a_push_starts_what_its_branch_matches(hub: Repository, clone: Clone) -> None:
    assert [run.workflow for run in hub.push(clone(it=PUSHED))] == ["it"]
    assert hub.push(clone(**{"mlops.yaml": "x"}), branch="other") == []


def test_a_pull_request_runs_for_its_merge_into_the_base(hub: Repository, clone: Clone) -> None:
    text = PUSHED.replace(
        "{run: echo}",
        f"{{uses: {CHECKOUT}, with: {{fetch-depth: 2, "
        "persist-credentials: false}}\n      - {run: 'git rev-parse HEAD^1 HEAD^2; ls'}",
    )
    hub.push(clone(it=text))
    base = git(hub.origin, "rev-parse", "main")
    folder = clone(change="x")
    head = git(folder, "rev-parse", "HEAD")
    [run] = hub.pull_request(folder, 7)
    assert run.jobs[0].steps[1].log.split() == [base, head, "change"], run.log
    assert run.event.ref == "refs/pull/7/merge"
    assert run.event.payload["pull_request"]["head"]["repo"]["full_name"] == "acme/churn"


@pytest.mark.slow
def test_a_fork_sees_no_secret_and_may_write_nothing(hub: Repository, clone: Clone) -> None:
    hub.secrets["KEY"] = "s3cret"
    text = PUSHED.replace("{contents: read}", "{pull-requests: write, id-token: write}")
    text = text.replace("{run: echo}", "{run: 'echo got $KEY', env: {KEY: '${{ secrets.KEY }}'}}")
    hub.push(clone(it=text))
    for fork, seen in (("", "got ***"), ("else/churn", "got")):
        [run] = hub.pull_request(clone(), 7, fork=fork)
        assert run.jobs[0].steps[0].log == seen
    _, own, forks = hub.tokens.values()
    assert own == {"pull-requests": "write", "id-token": "write"}
    assert forks == {"pull-requests": "read"}


def test_a_dispatch_that_github_would_refuse_is_refused(
    hub: Repository, clone: Clone, play: Play
) -> None:
    with pytest.raises(Refused, match="Unexpected inputs"):
        play(steps("{run: echo}"), other="x")
    with pytest.raises(Refused, match="Required input 'word'"):
        play(steps("{run: echo}").replace("{type: string}", "{required: true}"))
    hub.push(clone(it=PUSHED))
    with pytest.raises(Refused, match="workflow_dispatch"):
        hub.dispatch("it", {})


# What stands in for actions.


def work(play: Play, *more: str, **given: str) -> Run:
    told = ", ".join(f"{name.replace('_', '-')}: {value}" for name, value in given.items())
    return play(steps(f"{{uses: {CHECKOUT}, with: {{{told}}}}}", *more))


def test_a_checkout_holds_a_commit_without_its_history(play: Play, clone: Clone) -> None:
    first = git(clone(a="1"), "rev-parse", "HEAD")
    clone(a="2")
    show = "{run: 'cat a; git log --oneline | wc -l; test -x .venv/bin/mlops'}"
    run = work(play, show, persist_credentials="false", ref=first)
    assert run.conclusion == "success", run.log
    assert run.jobs[0].steps[1].log.split() == ["11"], run.log
    run = work(play, show, persist_credentials="false")
    assert run.jobs[0].steps[1].log.split() == ["21"], run.log


def test_a_checkout_of_a_missing_commit_fails(play: Play) -> None:
    run = work(play, persist_credentials="false", ref="b" * 40)
    assert run.conclusion == "failure" and "cannot fetch" in run.log


def test_a_checkout_with_unknown_options_is_refused(play: Play) -> None:
    for options in ({}, {"persist_credentials": "true"}, {"path": "x"}):
        with pytest.raises(Unsupported):
            work(play, **options)


def signs_in(play: Play, access: str = "write", **changes: str) -> Run:
    given = GIVEN | {name.replace("_", "-"): value for name, value in changes.items()}
    told = ", ".join(f"{name}: '{value}'" for name, value in given.items())
    text = steps(
        f"{{uses: {SIGN_IN}, with: {{{told}}}}}",
        "{run: 'echo $AWS_REGION; echo 123456789012 s3cret'}",
    )
    return play(text.replace("{contents: read}", f"{{id-token: {access}}}"))


def test_who_has_signed_in_has_masked_credentials_in_later_steps(play: Play) -> None:
    run = signs_in(play, mask_aws_account_id="true")
    assert run.jobs[0].steps[1].log == "eu-west-1\n*** ***", run.log
    assert signs_in(play).jobs[0].steps[1].log == "eu-west-1\n123456789012 ***"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"access": "none"}, "id-token"),
        ({"role_to_assume": ""}, "Could not assume"),
        ({"aws_region": ""}, "Region is not valid"),
        ({"role_session_name": "a b"}, "roleSessionName"),
        ({"aws_access_key_id": ""}, "provided together"),
        ({"aws_access_key_id": "AKIA"}, "provided together"),
    ],
)
def test_a_sign_in_that_aws_s_action_refuses_fails(
    play: Play, changes: dict[str, str], why: str
) -> None:
    run = signs_in(play, **changes)
    assert outcomes(run) == ["failure", "skipped"] and why in run.log


def test_a_key_needs_no_identity_and_unknown_inputs_are_refused(play: Play) -> None:
    key = {"aws_access_key_id": "AKIA", "aws_secret_access_key": "x"}
    assert signs_in(play, "none", **key).conclusion == "success"
    with pytest.raises(Unsupported, match="retry-max-attempts"):
        signs_in(play, retry_max_attempts="3")
