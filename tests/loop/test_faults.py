"""Calls that bootstrap, deploy and destroy make to AWS and GitHub fail once, and the next run
leaves exactly what a run without a failure leaves.

The calls are recorded, not listed. Each fails in `make test-long`, and in every way in
`bench/faults.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from account_case import differences
from fault_case import WAYS, Campaign, Stage, Verdict, deployable, stage

pytestmark = pytest.mark.slow
CONNECT, DISCONNECT = ("bootstrap", "--yes"), ("bootstrap", "--destroy", "--yes")


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Stage]:
    """Return a repo and its owner, whose workflows sign in with a key, which takes most calls."""
    with stage(tmp_path, sign_in="iam-user") as found:
        yield found


def fail(campaign: Campaign, every: int = 1, first: int = 0) -> None:
    """Let one in `every` calls fail: of those that change something the answer is lost, git's
    first one gets none, of the others each fails in another way than the one before."""
    met: list[Verdict] = []
    ways = cycle(WAYS)
    for number in range(first, len(campaign.calls), every):
        call = campaign.calls[number]
        way = next(ways) if call.reads else "lost"
        way = "timeout" if call.label.endswith("info/refs") else way
        met.append(campaign.meet(number, way))
    assert [each for each in met if each.wrong] == []
    assert {each.way for each in met} == set(WAYS)
    assert len(met) >= 4


@pytest.mark.long
@pytest.mark.parametrize("first", [0, 1], ids=["even calls", "odd calls"])
def test_bootstrap_continues_after_any_call_that_failed(empty: Stage, first: int) -> None:
    campaign = Campaign(empty, *CONNECT)
    kinds = {call.label.split()[0] for call in campaign.calls}
    assert {"GET", "POST", "PUT", "cloudformation", "s3", "sagemaker", "secretsmanager"} < kinds
    assert len(campaign.calls) > 100
    fail(campaign, 2, first)


@pytest.mark.long
@pytest.mark.parametrize("way", ["error", "lost"])
def test_bootstrap_gets_through_where_each_call_has_to_be_made_twice(
    empty: Stage, way: str
) -> None:
    assert Campaign(empty, *CONNECT).all_once(way).wrong == ()


@pytest.mark.long
def test_disconnecting_continues_after_any_call_that_failed(empty: Stage) -> None:
    assert empty.command(*CONNECT).code == 0
    campaign = Campaign(empty, *DISCONNECT)
    assert len(campaign.calls) > 50
    fail(campaign)
    assert campaign.all_once("lost").wrong == ()
    gone = set(campaign.began_with) - set(campaign.wanted)
    assert {"stacks", "buckets", "roles", "secrets", "functions", "products", "groups"} <= gone


@pytest.mark.long
def test_deploy_and_destroy_continue_after_any_call_that_failed(empty: Stage) -> None:
    arn = deployable(empty)
    before = empty.everything()
    deploy = Campaign(empty, "deploy", "staging", "--model-package-arn", arn)
    empty.keep("deployed")
    fail(deploy)
    assert deploy.all_once("lost").wrong == ()
    empty.back_to("deployed")
    destroy = Campaign(empty, "destroy", "staging", "--yes")
    fail(destroy)
    assert destroy.all_once("lost").wrong == ()
    assert list(differences(before, destroy.wanted)) == []


def test_leftovers_would_be_noticed(empty: Stage) -> None:
    before = empty.everything()
    iam = empty.server.client(empty.server.region, "iam")
    iam.create_role(RoleName="left", AssumeRolePolicyDocument="{}")
    assert list(differences(before, empty.everything())) == ["/roles is in the second only"]
