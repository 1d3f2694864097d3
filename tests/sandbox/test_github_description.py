"""GitHub's own description judges every exchange of the tests with the sandbox's GitHub."""

from __future__ import annotations

from typing import Any

import pytest

import github_description

SECRET = "/repos/acme/churn/actions/secrets/KEY"
SEALED = {"encrypted_value": "c2VhbGVk", "key_id": "1"}
TOKEN = "/app/installations/7/access_tokens"
DISPATCH = "/repos/acme/churn/actions/workflows/deploy.yml/dispatches"
COMMENTS, COMMENT = "/repos/acme/churn/issues/7/comments", "/repos/acme/churn/issues/comments/1"


def test_every_route_is_described() -> None:
    named = {name for name, _ in github_description.operations()}
    assert named == set(github_description.described())


@pytest.mark.parametrize(
    ("exchange", "said"),
    [
        (("PUT", SECRET, SEALED, 204, None), ""),
        (("PUT", SECRET, SEALED, 200, None), "answers 200, not one of 201, 204"),
        (("PUT", SECRET, {"encrypted_value": "x"}, 201, {}), "'key_id' is a required property"),
        (("PUT", SECRET, SEALED | {"visibility": "all"}, 204, None), "'visibility' was unexpected"),
        (("PUT", SECRET, SEALED | {"encrypted_value": "%"}, 204, None), "does not match"),
        (("PUT", "/repositories/3/actions/secrets/KEY", SEALED, 204, None), ""),
        (("POST", TOKEN, {"repositories": ["churn"]}, 201, {"token": "x"}), ""),
        (("POST", TOKEN, {"repositories": "churn"}, 201, {"token": "x"}), "not of type 'array'"),
        (("POST", TOKEN, {}, 201, {"token": 1}), "1 is not of type 'string'"),
        (("POST", TOKEN, {}, 201, {"tokens": "x"}), "'tokens' was unexpected"),
        (("PUT", SECRET, {}, 422, {"message": "x"}), ""),
        (("POST", DISPATCH, {"ref": "main", "return_run_details": True}, 200, {}), ""),
        (("POST", DISPATCH, {"inputs": {}}, 204, None), "'ref' is a required property"),
        (("POST", DISPATCH, {"ref": "main", "wait": True}, 204, None), "'wait' was unexpected"),
        (("POST", COMMENTS, {"body": "x"}, 201, {"id": 1}), ""),
        (("POST", COMMENTS, {"text": "x"}, 201, {"id": 1}), "'body' is a required property"),
        (("PATCH", COMMENT, {"body": 1}, 200, {"id": 1}), "1 is not of type 'string'"),
        (("GET", f"{COMMENTS}?page=2", None, 200, [{"id": "1"}]), "'1' is not of type 'integer'"),
        (("GET", "/repos/acme/churn/issues/7", None, 200, {}), "not described"),
    ],
)
def test_what_the_description_does_not_know_is_noticed(exchange: Any, said: str) -> None:
    found = github_description.wrong(*exchange)
    assert bool(found) == bool(said)
    assert said in " ".join(found)
