"""Every call that bootstrap, deploy and destroy make to AWS and GitHub fails once, and the next run
leaves exactly what a run without a failure leaves.

The calls are recorded, not listed. `python bench/faults.py` in the template lets each of them fail
in each way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from account_case import differences
from fault_case import WAYS, Campaign, Stage, deployable, stage

pytestmark = pytest.mark.slow
CONNECT, DISCONNECT = ("bootstrap", "--yes"), ("bootstrap", "--destroy", "--yes")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Stage]:
    """Nothing but a repo and its owner, whose workflows sign in with a key: that takes most."""
    with stage(tmp_path, sign_in="iam-user") as found:
        yield found


def all_fail(campaign: Campaign, first: float = 0, last: float = 1) -> None:
    """Let calls fail: of those that change something the answer is lost, git's first one gets none,
    of the others each fails in another way than the one before. `first` and `last` are parts of
    them."""
    count = len(campaign.calls)
    met = []
    for number in range(int(count * first), int(count * last)):
        call = campaign.calls[number]
        way = WAYS[number % len(WAYS)] if call.reads else "lost"
        way = "timeout" if call.label.endswith("info/refs") else way
        met.append(campaign.meet(number, way))
    assert [each for each in met if each.wrong] == []
    assert {each.way for each in met} == set(WAYS)


@pytest.mark.parametrize("part", [0, 1], ids=["first half", "second half"])
def test_bootstrap_goes_on_after_any_call_that_failed(empty: Stage, part: int) -> None:
    campaign = Campaign(empty, *CONNECT)
    kinds = {call.label.split()[0] for call in campaign.calls}
    assert {"GET", "POST", "PUT", "cloudformation", "s3", "sagemaker", "secretsmanager"} < kinds
    assert len(campaign.calls) > 100
    all_fail(campaign, part / 2, (part + 1) / 2)


@pytest.mark.parametrize("way", ["error", "lost"])
def test_bootstrap_gets_through_where_each_call_has_to_be_made_twice(
    empty: Stage, way: str
) -> None:
    assert Campaign(empty, *CONNECT).all_once(way).wrong == ()


def test_disconnecting_goes_on_after_any_call_that_failed(empty: Stage) -> None:
    assert empty.command(*CONNECT).code == 0
    campaign = Campaign(empty, *DISCONNECT)
    assert len(campaign.calls) > 50
    all_fail(campaign)
    assert campaign.all_once("lost").wrong == ()
    gone = set(campaign.began_with) - set(campaign.wanted)
    assert {"stacks", "buckets", "roles", "secrets", "functions", "products", "groups"} <= gone


def test_deploy_and_destroy_go_on_after_any_call_that_failed(empty: Stage) -> None:
    arn = deployable(empty)
    before = empty.everything()
    deploy = Campaign(empty, "deploy", "staging", "--model-package-arn", arn)
    empty.keep("deployed")
    all_fail(deploy)
    assert deploy.all_once("lost").wrong == ()
    empty.back_to("deployed")
    destroy = Campaign(empty, "destroy", "staging", "--yes")
    all_fail(destroy)
    assert destroy.all_once("lost").wrong == ()
    assert list(differences(before, destroy.wanted)) == []


def test_what_was_left_behind_would_be_seen(empty: Stage) -> None:
    before = empty.everything()
    iam = empty.server.client(empty.server.region, "iam")
    iam.create_role(RoleName="left", AssumeRolePolicyDocument="{}")
    assert list(differences(before, empty.everything())) == ["/roles is in the second only"]
