"""The lists of data and keys that the platform's boundaries hold, and how long they may be."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace
from typing import Any

import pytest

from iam_case import length
from infra_case import ACCOUNT, REGION
from platform_case import BUCKET, KEY, LAKE, platform
from sm_mlops.bootstrap import needs
from sm_mlops.bootstrap.boundaries import LIMIT, Boundaries
from sm_mlops.errors import MlopsError

FOLDERS = ",".join(["arn:aws:s3:::lake", *(f"arn:aws:s3:::lake/team-{n}/*" for n in range(60))])
BUCKETS = ",".join(f"arn:aws:s3:::acme-{n}-data,arn:aws:s3:::acme-{n}-data/*" for n in range(30))
KEYS = ",".join(KEY.replace("1234abcd", f"{number:08}") for number in range(9))
FULL = {
    "DataLocations": ",".join(BUCKETS.split(",")[:30]),
    "KeyArns": ",".join(KEYS.split(",")[:4]),
}
LISTS: list[dict[str, str]] = [
    {},
    {"DataLocations": LAKE, "KeyArns": KEY},
    {"DataLocations": FOLDERS, "KeyArns": KEYS},
]


def boundaries(region: str = REGION) -> Boundaries:
    settings = SimpleNamespace(partition="aws", project=SimpleNamespace(region=region))
    aws: Any = SimpleNamespace(account=ACCOUNT, command="mlops", settings=settings)
    return Boundaries(aws, BUCKET)


@pytest.mark.parametrize("lists", LISTS, ids=["empty", "one", "many"])
@pytest.mark.parametrize("logical", ["Boundary", "TrainBoundary", "GitHubBoundary"])
def test_the_length_is_that_of_the_policy_that_cloudformation_makes(
    logical: str, lists: dict[str, str]
) -> None:
    [policy] = platform(lists).policies(logical)
    assert boundaries().lengths(lists)[logical] == length(policy)


def test_longer_names_make_a_boundary_longer() -> None:
    here, there = boundaries().lengths({}), boundaries("ap-southeast-1").lengths({})
    assert all(there[name] > here[name] for name in here)


def test_what_a_wider_entry_covers_leaves_the_list() -> None:
    lake = "arn:aws:s3:::lake"
    assert needs.merged(f"{lake},{lake}/a/*", [f"{lake}/*", f"{lake}/b/*"]) == f"{lake},{lake}/*"
    assert needs.merged(f"{lake}-*", [f"{lake}-eu", f"{lake}-eu/a/*"]) == f"{lake}-*"
    # Neither a bucket by its objects, nor what only begins alike.
    for apart in (f"{lake}/*,{lake}", f"{lake}/a/*,{lake}/ab/*", f"{lake}-*,{lake}"):
        assert needs.merged(apart, []) == apart
    assert needs.merged(KEY, [re.sub("/.*", "/*", KEY)]) == re.sub("/.*", "/*", KEY)


def test_wider_lists_allow_whatever_the_others_do() -> None:
    assert needs.widened(FOLDERS) == "arn:aws:s3:::lake,arn:aws:s3:::lake/*"
    other = KEY.replace(REGION, "us-east-1")
    wide = [re.sub("/.*", "/*", key) for key in (KEY, other)]
    assert needs.widened(f"{KEYS},{other}") == ",".join(wide)


@pytest.mark.parametrize(
    ("lists", "named"),
    [
        ({"DataLocations": FOLDERS}, ["DataLocations"]),
        ({"KeyArns": KEYS}, ["KeyArns"]),
        ({"DataLocations": FOLDERS, "KeyArns": KEYS}, ["DataLocations", "KeyArns"]),
        (FULL, ["KeyArns"]),
    ],
    ids=["folders", "keys", "both", "as far as it goes"],
)
def test_too_long_a_list_is_refused_with_a_command_that_makes_space(
    lists: dict[str, str], named: list[str]
) -> None:
    with pytest.raises(MlopsError) as caught:
        boundaries().require_space(lists)
    [longest] = re.findall(r"would have ([0-9,]+) characters; IAM allows 6,144", str(caught.value))
    assert int(longest.replace(",", "")) == max(boundaries().lengths(lists).values()) > LIMIT
    words = shlex.split(str(caught.value).partition("keys instead: ")[2])
    assert words[:2] == ["mlops", "bootstrap"]
    given = dict(word.split("=", 1) for word in words[3::2])
    assert list(given) == named
    assert platform({**lists, **given})
    boundaries().require_space({**lists, **given})


def test_of_many_buckets_the_remedy_names_those_that_begin_alike() -> None:
    with pytest.raises(MlopsError, match=r"'DataLocations=arn:aws:s3:::acme-\*,\.\.\.'"):
        boundaries().require_space({"DataLocations": BUCKETS})
    assert platform(DataLocations="arn:aws:s3:::acme-*")
    boundaries().require_space({"DataLocations": needs.merged(BUCKETS, ["arn:aws:s3:::acme-*"])})


@pytest.mark.parametrize(
    "location", [BUCKET, f"{BUCKET}/churn/data/*", "sm-*"], ids=["bucket", "project", "pattern"]
)
def test_no_list_includes_the_artifact_bucket(location: str) -> None:
    boundaries().require_apart(f"{LAKE},arn:aws:s3:::smart-*")
    with pytest.raises(MlopsError, match="includes the artifact bucket"):
        boundaries().require_apart(f"{LAKE},arn:aws:s3:::{location}")
