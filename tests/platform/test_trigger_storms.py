"""The trigger in foul weather: events that come twice, late, in another order, broken or from
elsewhere, and a GitHub that is slow, down, rate limiting or lying. What surrounds it is in
storm_case.py; what it does in fair weather, test_trigger.py shows."""

from __future__ import annotations

import itertools
import json
import socket
import urllib.request
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storm_case import ACCOUNT, JENKINS, KEY, PROJECTS, REGION, SIGNED, TOKEN, Weather, World
from trigger_case import functions, replace

JENKINS_SECRET = {"jenkins_user": "ci", "jenkins_token": JENKINS}
ENVIRONMENT = {
    "AWS_REGION": REGION,
    "ALLOWED_OWNERS": "acme,others",
    "CLAIMS_BUCKET": "claims",
    "CREDENTIAL_SECRET": "sm-mlops/github",
    "GITHUB_API": "http://127.0.0.1:8001",
    "JENKINS_URL": "http://127.0.0.1:8002",
}
STATUSES = ("PendingManualApproval", "Approved", "Rejected")
RETRY_AFTER = (None, "0", "1", "8", "9", "60", "3600", "-1", "soon", "9" * 30, "", "1, 2")
WORDS = ("no", "", "TOKEN", "bad credential: TOKEN", "line\nline", "x" * 190 + "TOKEN", "\u00e9\0")
LOCATIONS = (
    "", "/movedPATH", "http://127.0.0.1:8001/movedPATH", "/repositories/1", "https://thief.test/",
    "//thief.test/PATH", "http://127.0.0.1@thief.test/", "http://127.0.0.1:81/", "https://[",
    "javascript:alert(1)", "/with spaces\t", "/\u00e9", "/TOKEN", "http://127.0.0.1:8002/movedPATH",
)  # fmt: skip
ANSWERS = (
    "", "nonsense", "[]", "null", "1e999", '{"html_url": null}', '{"html_url": ["x"]}',
    '{"html_url": "https://github.com/acme/churn/actions/runs/7"}',
    '{"html_url": "https://github.com/strangers/churn/actions/runs/7"}',
    '{"html_url": "https://TOKEN/acme/churn/actions/runs/7"}',
    '{"html_url": "javascript:alert(1)"}', '{"html_url": "TOKEN"}', '{"token": "TOKEN\\r\\nX: y"}',
    '{"html_url": "https://github.com/acme/churn/actions/runs/TOKEN"}', '{"token": 7}',
    '{"token": ["ghs_x"]}', '{"html_url": "\\ud800"}', "[" * 70_000, "9" * 5000, "\ud800",
)  # fmt: skip
# Those in which GitHub says nothing of what it has done.
SILENT = ("silent", "reset", "gone", "dribble", "continue", "slow error", "killed")
GARBAGE = ("\0\xff\n\n", "HTTP/9.9 ok\r\n\r\n", "HTTP/1.1 2\r\n\r\n", "<html>", "\r\n" * 99,
           "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 200, "HTTP/1.1 200 " + "x" * 70_000)  # fmt: skip
MEANWHILE = ("event", "replay", "edit", "Approved", "Rejected")
# Each of them, as good as: fifteen seconds are too late, seven are not.
WEATHERS = (
    Weather(),
    *(Weather(late=seconds) for seconds in (7, 15)),
    *(Weather(kind, acts) for kind in SILENT for acts in (False, True)),
    *(Weather("garbage", acts, text=text) for text in GARBAGE for acts in (False, True)),
    *(Weather(kind) for kind in ("refused", "unresolved", "torn", "flood", "lie")),
    *(Weather("status", acts, 503, after) for after in RETRY_AFTER for acts in (False, True)),
    *(Weather("status", False, 429, after, late=late) for after in RETRY_AFTER for late in (0, 7)),
    *(Weather("status", False, code, text=text) for code in (401, 403, 422, 500) for text in WORDS),
    *(Weather("status", False, code) for code in (400, 404, 409, 410)),
    *(Weather("redirect", False, 307, text=where) for where in LOCATIONS),
    *(Weather("redirect", False, code, text="/movedPATH") for code in range(300, 310)),
    *(Weather("redirect", False, 302, text=where) for where in LOCATIONS),
    *(Weather("details", True, 200, text=text) for text in ANSWERS),
    *(Weather("details", True, code) for code in (201, 202, 206)),
    *(Weather("meanwhile", text=what) for what in MEANWHILE),
)
WEATHER = st.sampled_from(WEATHERS)
SCRIPT = st.lists(WEATHER, max_size=3)
INDEX = st.integers(0, 11)
GROUP = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:model-package/churn"
# Looks like the ARN of a version here, but is not one.
NO_ARNS = (
    f"{GROUP}/", f"{GROUP}/0", f"{GROUP}/01", f"{GROUP}/1/2", f"{GROUP}-/1", f"{GROUP}/1\n",
    f" {GROUP}/1", f"{GROUP}/\u0661", f"{GROUP}/{'9' * 10}", f"{GROUP}/999999999", f"{GROUP}/1\0",
    f"{GROUP}{'x' * 60}/1", f"{GROUP}/1{' ' * 300}", "x" * 100_000, "\ud800", GROUP.upper() + "/1",
    GROUP.replace(ACCOUNT, "999999999999") + "/1", GROUP.replace(REGION, "us-east-1") + "/1",
    GROUP.replace("arn:aws:", "arn:aws-cn:") + "/1", GROUP.replace("churn", "-churn") + "/1",
    GROUP.replace(":model-package", ":model-package-group"), f"{GROUP}-none/1",
    GROUP.replace("sagemaker", "lambda") + "/1",
)  # fmt: skip
NO_ARN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.text(max_size=30),
    st.lists(st.just(f"{GROUP}/1"), max_size=2),
    st.dictionaries(st.just("arn"), st.just(f"{GROUP}/1"), max_size=1),
    st.sampled_from(NO_ARNS),
)
# Of what the event says besides: a hint it remains.
MUTATION: st.SearchStrategy[Any] = st.tuples(
    st.sampled_from(
        ["source", "detail-type", "account", "region", "time", "resources", "version", "id"]
    ),
    st.sampled_from(
        [None, [], {}, "", "x" * 100_000, "aws.elsewhere", "\ud800\0", 1e308, -1, True]
    ),
)
INNER: st.SearchStrategy[Any] = st.tuples(
    st.sampled_from(
        ["ModelApprovalStatus", "ModelPackageGroupName", "UpdatedModelPackageFields", "Replay"]
    ),
    st.sampled_from(
        [None, [], {}, "", "Rejected", [None], [{}], ["ModelApprovalStatus"], 1, "true"]
    ),
)
AWS = ("describe_model_package", "get_secret_value", "put_object", "get_object", "delete_object")
GROUPS = st.sampled_from([*PROJECTS, "churn", "churn-eu", "fraud", "churn", "fraud"])
STEPS = st.one_of(
    # The most frequent by far: an event comes for the first time or again, or Lambda tries again.
    *(st.tuples(st.just("deliver"), INDEX, SCRIPT) for _ in range(4)),
    *(st.tuples(st.just("retry"), SCRIPT) for _ in range(4)),
    st.tuples(st.just("register"), GROUPS, st.sampled_from(STATUSES)),
    st.tuples(st.just("change"), INDEX, st.sampled_from(STATUSES)),
    st.tuples(st.just("change"), INDEX, st.just("Approved")),
    st.tuples(st.just("edit"), INDEX),
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 59, 61, 3600, 25_000])),
    st.tuples(st.just("trouble"), st.sampled_from(AWS)),
    st.tuples(st.just("drop"), INDEX),
    st.tuples(st.just("replay"), INDEX, SCRIPT),
    st.tuples(st.just("delete"), INDEX),
    st.tuples(st.just("malformed"), INDEX, NO_ARN),
    st.tuples(st.just("changed"), INDEX, MUTATION, INNER, SCRIPT),
)


@pytest.fixture(scope="module")
def storm() -> Iterator[Callable[..., World]]:
    """Make a world around the function, which signs in with a token or as a GitHub App."""
    with pytest.MonkeyPatch.context() as patch, functions() as modules:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("GIT_HOST", raising=False)
        patch.setattr(urllib.request, "getproxies", dict)
        # Signing takes a twentieth of a second.
        signs = SimpleNamespace(encode=lambda *_, **__: SIGNED, PyJWTError=ValueError)
        patch.setattr(modules.app, "jwt", signs)

        def made(signs_in: str = "token") -> World:
            app_secret = {"app_id": 17, "installation_id": "42", "private_key": KEY}
            secret = {"token": TOKEN} if signs_in == "token" else app_secret
            world = World(modules.handler, secret | JENKINS_SECRET)
            replace(patch, modules, "time", world.clock)
            replace(patch, modules, "signal", world.clock)
            replace(patch, modules, "client", world.client)
            for module in (modules.handler, modules.claims):
                patch.setattr(module, "print", world.log.append, raising=False)
            patch.setattr(socket, "create_connection", world.connect)
            return world

        yield made


def take(world: World, step: tuple[Any, ...]) -> None:
    """Let one thing happen, if it can."""
    kind, *rest = step

    def of(things: list[Any]) -> Any:
        """Choose one, most often the latest."""
        return things[-1 - rest[0] % len(things)]

    if kind == "register":
        world.register(*rest)
    elif kind == "trouble":
        world.trouble = rest[0]
    elif kind == "wait":
        world.clock.sleep(rest[0])
    elif kind == "retry" and world.retries:
        world.retry(rest[0])
    elif kind in ("change", "edit", "delete", "replay") and world.versions:
        version = of(world.versions)
        if version.arn in world.deleted:
            return
        if kind == "delete":
            world.deleted.add(version.arn)
        else:
            getattr(world, kind)(version, *rest[1:])
    elif kind == "deliver" and world.events:
        world.deliver(of(world.events), rest[1])
    elif kind == "drop" and world.events:
        event = of(world.events)
        world.delivered.add(event["id"])
        world.dropped.append(event)
    elif kind == "malformed":
        event = of(world.events) if world.events else {"detail": {}}
        world.nothing(event | {"detail": event["detail"] | {"ModelPackageArn": rest[1]}})
    elif kind == "changed" and world.events:
        event = of(world.events)
        (name, value), (inner, content), script = rest[1:]
        # As one more of its kind, after which the true one still comes.
        changed = event | {name: value, "detail": event["detail"] | {inner: content}}
        world.call(changed, script)


SIGN_INS = [("token", "churn"), ("app", "churn"), ("token", "fraud")]


@pytest.mark.slow
@pytest.mark.parametrize(("signs_in", "group"), SIGN_INS, ids=["token", "app", "jenkins"])
def test_after_any_fault_lambdas_own_attempts_start_what_has_not_started(
    storm: Callable[..., World], signs_in: str, group: str
) -> None:
    limited = Weather("status", False, 429, "8", late=7)
    for weather, before in itertools.product(WEATHERS, ([], [Weather()], [limited, Weather()])):
        world = storm(signs_in)
        world.register(group, "Approved")
        world.deliver(world.events[0], [*before, weather])
        world.clock.sleep(1)
        world.deliver(world.events[0], [])
        assert not world.letters
        world.settle()
        assert not world.wrong and not world.letters, (before, weather, world.wrong)
        # More than one only if GitHub started it without saying so, or someone asked.
        lost = sum(not dispatch.told for dispatch in world.dispatches)
        asked = {"replay", "Approved", "edit"} & {weather.text}
        assert lost <= weather.acts, (before, weather)
        assert len(world.dispatches) - lost - bool(asked) <= 1, (before, weather)


@pytest.mark.parametrize("arn", NO_ARNS, ids=lambda arn: ascii(arn[-30:]))
def test_a_foreign_or_malformed_version_is_left_alone(
    storm: Callable[..., World], arn: str
) -> None:
    world = storm()
    world.register("churn", "Approved")
    world.nothing({"detail": {"ModelPackageArn": arn, "Replay": True}})
    assert not world.wrong


def test_nothing_is_asked_whose_answer_would_come_too_late(storm: Callable[..., World]) -> None:
    world = storm("app")
    world.register("churn", "Approved")
    world.deliver(world.events[0], [Weather("status", False, 429, "8", late=7), Weather(late=7)])
    assert world.last.requests == 2 and not world.dispatches
    assert "no time was left" in "".join(world.log)
    world.settle()
    assert len(world.dispatches) == 1 and not world.wrong


def test_a_change_of_an_approved_version_starts_nothing_by_itself(
    storm: Callable[..., World],
) -> None:
    world = storm()
    world.register("churn", "Approved")
    world.deliver(world.events[0], [])
    world.edit(world.versions[0])
    world.settle()
    assert len(world.events) == 2 and len(world.dispatches) == 1


@pytest.mark.parametrize("run", ["acme/churn/actions/runs/7", "acme/other/actions/runs/7", "x"])
def test_only_a_run_in_the_projects_repository_is_returned(
    storm: Callable[..., World], run: str
) -> None:
    world, address = storm(), f"https://github.com/{run}"
    world.register("churn", "Approved")
    text = json.dumps({"html_url": address})
    told = world.call(world.events[0], [Weather("details", True, 200, text=text)])
    assert told and told["started"] and told["run"] == (address if "churn" in run else "")


def storms(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that calls a test with so many stories."""

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        told = given(
            signs_in=st.sampled_from(["token", "app"]),
            approved=st.lists(GROUPS, min_size=1, max_size=3),
            steps=st.lists(STEPS, min_size=3, max_size=25),
        )(test)
        return settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )(told)

    return decorate


def play(
    storm: Callable[..., World], signs_in: str, approved: list[str], steps: list[tuple[Any, ...]]
) -> None:
    world = storm(signs_in)
    for step in [*(("register", group, "Approved") for group in approved), *steps]:
        take(world, step)
        assert not world.wrong, world.wrong
    world.settle()
    assert not world.wrong, world.wrong


@pytest.mark.slow
@storms(40)
def test_whatever_happens_each_approval_starts_once_or_someone_is_notified(
    storm: Callable[..., World], signs_in: str, approved: list[str], steps: list[tuple[Any, ...]]
) -> None:
    play(storm, signs_in, approved, steps)


@pytest.mark.slow
@pytest.mark.long
@storms(2000)
def test_whatever_happens_in_thousands_of_stories_each_approval_starts_once(
    storm: Callable[..., World], signs_in: str, approved: list[str], steps: list[tuple[Any, ...]]
) -> None:
    play(storm, signs_in, approved, steps)
