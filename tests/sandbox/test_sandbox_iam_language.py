"""Policies mean in the sandbox what IAM's documentation says they mean."""

from __future__ import annotations

from typing import Any

import pytest

from sm_mlops.sandbox.decisions import base_facts, decide
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Asked, Facts, said
from sm_mlops.sandbox.wire import ApiError

ROLE = "arn:aws:iam::123456789012:role/churn-github"
SESSION = "arn:aws:sts::123456789012:assumed-role/churn-github/run"
USER = "arn:aws:iam::123456789012:user/sm-mlops/ann"
OTHER = "210987654321"
BUCKET = "arn:aws:s3:::bucket"
FACTS: dict[str, Any] = {
    "aws:PrincipalArn": ROLE,
    "aws:RequestTag/Project": "churn",
    "aws:TagKeys": ("project", "stage"),
    "aws:SecureTransport": "true",
    "empty": (),
}


def facts() -> Facts:
    return Facts(FACTS, {"aws:principaltag/": lambda: {"project": "churn", "star": "c*"}})


def says(change: dict[str, Any], action: str = "s3:GetObject", resource: str = "") -> str:
    """Return what a policy of one statement says."""
    statement = {"Effect": "Allow", "Action": "*", "Resource": "*", **change}
    shown = {key: value for key, value in statement.items() if value is not None}
    document = {"Version": "2012-10-17", "Statement": shown}
    names = {ROLE: "direct", SESSION: "direct", "123456789012": "account"}
    found = said(document, Asked(action, resource or f"{BUCKET}/churn/a", facts(), names))
    return "deny" if found.denied else "/".join(sorted(found.allowed)) or "nothing"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "own"),
        ({"Effect": "Deny"}, "deny"),
        ({"Action": "S3:getobject"}, "own"),
        ({"Action": ["s3:Put*", "s3:Get?bject"]}, "own"),
        ({"Action": "s3:Get"}, "nothing"),
        ({"Resource": f"{BUCKET}/*"}, "own"),
        ({"Resource": BUCKET}, "nothing"),
        ({"Resource": "arn:aws:s3:::b*"}, "own"),
        ({"Resource": f"{BUCKET}/CHURN/*"}, "nothing"),
        ({"Resource": f"{BUCKET}/[c]hurn/a"}, "nothing"),
        ({"Resource": BUCKET + "/${aws:PrincipalTag/project}/*"}, "own"),
        ({"Resource": BUCKET + "/${aws:principaltag/PROJECT}/*"}, "own"),
        ({"Resource": BUCKET + "/${aws:PrincipalTag/none}/*"}, "nothing"),
        ({"Resource": BUCKET + "/${aws:PrincipalTag/none, 'churn'}/a"}, "own"),
        ({"Resource": BUCKET + "/${aws:PrincipalTag/star}/a"}, "nothing"),
        ({"Resource": BUCKET + "/churn${*}"}, "nothing"),
        ({"Principal": "*"}, "anybody"),
        ({"Principal": {"AWS": ["123456789012"]}}, "account"),
        ({"Principal": {"AWS": [ROLE, "123456789012"]}}, "direct"),
        ({"Principal": {"AWS": SESSION}}, "direct"),
        ({"Principal": {"AWS": OTHER}}, "nothing"),
        ({"Principal": {"Service": "sagemaker.amazonaws.com"}}, "nothing"),
    ],
)
def test_a_statement_fits_by_action_resource_and_principal(
    change: dict[str, Any], expected: str
) -> None:
    assert says(change) == expected


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ({"StringEquals": {"aws:RequestTag/project": "churn"}}, True),
        ({"StringEquals": {"aws:requesttag/PROJECT": ["no", "churn"]}}, True),
        ({"StringEquals": {"aws:RequestTag/project": "CHURN"}}, False),
        ({"StringEquals": {"aws:RequestTag/project": "${aws:PrincipalTag/project}"}}, True),
        ({"StringEquals": {"aws:RequestTag/project": "${aws:PrincipalTag/none}"}}, False),
        ({"StringNotEquals": {"aws:RequestTag/project": "${aws:PrincipalTag/none}"}}, True),
        ({"StringLike": {"aws:RequestTag/project": "ch?r*"}}, True),
        ({"StringNotLike": {"aws:RequestTag/project": ["x", "ch*"]}}, False),
        ({"StringEquals": {"aws:RequestTag/none": "x"}}, False),
        ({"StringEqualsIfExists": {"aws:RequestTag/none": "x"}}, True),
        ({"StringEqualsIfExists": {"aws:RequestTag/project": "x"}}, False),
        ({"StringNotEquals": {"aws:RequestTag/none": "x"}}, True),
        ({"StringNotEquals": {"aws:RequestTag/project": ["x", "churn"]}}, False),
        ({"Null": {"aws:RequestTag/none": "true"}}, True),
        ({"Null": {"aws:RequestTag/none": False}}, False),
        ({"Null": {"aws:RequestTag/project": False}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["project", "stage", "x"]}}, True),
        ({"ForAllValues:StringEquals": {"aws:TagKeys": ["project"]}}, False),
        ({"ForAllValues:StringEquals": {"aws:None": ["project"]}}, True),
        ({"ForAllValues:StringEquals": {"empty": ["project"]}}, True),
        ({"ForAllValues:StringNotEquals": {"aws:TagKeys": "project"}}, False),
        ({"ForAllValues:StringNotEquals": {"aws:TagKeys": "other"}}, True),
        ({"StringEquals": {"aws:TagKeys": "project"}}, False),
        ({"Bool": {"aws:SecureTransport": True}}, True),
        ({"Bool": {"aws:SecureTransport": "false"}}, False),
        ({"ArnLike": {"aws:PrincipalArn": "arn:*:iam::*:role/*-github"}}, True),
        ({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:role/*"}}, True),
        ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam*role/*"}}, False),
        ({"ArnNotLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/sm-mlops/*"}}, True),
        (
            {
                "StringEquals": {"aws:RequestTag/project": "churn"},
                "Bool": {"aws:SecureTransport": "false"},
            },
            False,
        ),
    ],
)
def test_a_condition_holds_as_documented(condition: dict[str, Any], holds: bool) -> None:
    assert says({"Condition": condition}) == ("own" if holds else "nothing")
    assert says({"Condition": condition, "Effect": "Deny"}) == ("deny" if holds else "nothing")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"Condition": {"NumericEquals": {"s3:prefix": 1}}}, "the condition operator NumericEq"),
        ({"Condition": {"ForAnyValue:Null": {"s3:prefix": 1}}}, "the condition operator ForAny"),
        ({"Condition": {"StringResembles": {"aws:PrincipalArn": "*"}}}, "operator StringResembles"),
        ({"Condition": {"Null": {"lambda:Layer": True}}}, "the condition key lambda:layer in"),
        ({"Action": None, "NotAction": "s3:*"}, "NotAction in policies"),
        ({"Resource": None, "NotResource": "*"}, "NotResource in policies"),
        ({"NotPrincipal": {"AWS": ROLE}}, "NotPrincipal in policies"),
    ],
)
@pytest.mark.parametrize("effect", ["Allow", "Deny"])
def test_what_no_policy_of_ours_has_is_refused_by_name(
    change: dict[str, Any], what: str, effect: str
) -> None:
    with pytest.raises(ApiError, match=what):
        says({**change, "Effect": effect})


def test_variables_are_text_in_policies_of_the_old_version() -> None:
    statement = {"Effect": "Allow", "Action": "*", "Resource": BUCKET + "/${aws:username}"}
    asked = Asked("s3:GetObject", f"{BUCKET}/ann", Facts({"aws:username": "ann"}))
    assert said({"Version": "2012-10-17", "Statement": statement}, asked).allowed
    assert not said({"Version": "2008-10-17", "Statement": statement}, asked).allowed


# Several policies together.

ALL = '{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}'
READ = '{"Statement": {"Effect": "Allow", "Action": "s3:Get*", "Resource": "*"}}'
NO_READ = '{"Statement": {"Effect": "Deny", "Action": "s3:Get*", "Resource": "*"}}'
WRITE = '{"Statement": {"Effect": "Allow", "Action": "s3:Put*", "Resource": "*"}}'


def for_(who: str, effect: str = "Allow") -> str:
    return (
        f'{{"Statement": {{"Effect": "{effect}", "Action": "*", "Principal": {{"AWS": "{who}"}}}}}}'
    )


@pytest.mark.parametrize(
    ("own", "boundary", "resource", "options", "expected"),
    [
        ([], None, None, {}, "because no identity-based policy allows the X action"),
        ([READ], None, None, {}, "yes"),
        ([READ, NO_READ], None, None, {}, "with an explicit deny in an identity-based"),
        ([ALL], READ, None, {}, "yes"),
        ([ALL], WRITE, None, {}, "because no permissions boundary allows the X action"),
        ([ALL], NO_READ, None, {}, "with an explicit deny in a permissions boundary"),
        ([READ], READ, None, {}, "yes"),
        # In its own account, a resource's policy that names the role suffices within the boundary.
        ([], None, for_(ROLE), {}, "yes"),
        ([], WRITE, for_(ROLE), {}, "because no permissions boundary"),
        ([], None, for_("123456789012"), {}, "because no identity-based policy"),
        ([ALL], None, for_(ROLE, "Deny"), {}, "with an explicit deny in a resource-based"),
        # Across accounts it takes both.
        ([ALL], None, None, {"owner": OTHER}, "because no resource-based policy"),
        ([], None, for_(ROLE), {"owner": OTHER}, "because no identity-based policy"),
        ([READ], None, for_("123456789012"), {"owner": OTHER}, "yes"),
        # A key's policy must allow or leave it to the account.
        ([ALL], None, for_(OTHER), {"policy_decides": True}, "because no resource-based"),
        ([ALL], None, for_("123456789012"), {"policy_decides": True}, "yes"),
        ([], None, for_("123456789012"), {"policy_decides": True}, "no identity-based"),
    ],
)
def test_policies_are_weighed_together(
    own: list[str],
    boundary: str | None,
    resource: str | None,
    options: dict[str, Any],
    expected: str,
) -> None:
    who = Identity("role", SESSION, ROLE, "123456789012", tuple(own), boundary)
    verdict = decide(
        who, "s3:GetObject", f"{BUCKET}/a", base_facts(who, "eu-west-1"), resource, **options
    )
    words = "yes" if verdict.allowed else verdict.words("s3:GetObject")
    assert expected.replace("X", "s3:GetObject") in words


def test_a_user_named_in_a_policy_escapes_the_boundary_and_a_role_does_not() -> None:
    def allowed(kind: str, arn: str) -> bool:
        who = Identity(kind, arn, arn, "123456789012", (), WRITE)
        facts = base_facts(who, "eu-west-1")
        return decide(who, "s3:GetObject", f"{BUCKET}/a", facts, for_(arn)).allowed

    assert (allowed("user", USER), allowed("role", ROLE)) == (True, False)


def test_expensive_questions_are_asked_once_and_only_when_needed() -> None:
    asked = []

    def look() -> str:
        asked.append(1)
        return "x"

    facts = Facts({"iam:PermissionsBoundary": look})
    base = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    for condition in ({}, {"StringEquals": {"iam:permissionsboundary": "x"}}):
        for _ in range(2):
            document = {"Statement": base | {"Condition": condition}}
            assert said(document, Asked("a:B", "*", facts)).allowed
    assert asked == [1]
