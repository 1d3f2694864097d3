"""Routes about the environments of a repository: reviewers, branch rules, what a plan allows."""

from __future__ import annotations

import time

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.github.access import Access
from sm_mlops.sandbox.github.accounts import Actor
from sm_mlops.sandbox.github.answers import (
    Answer,
    Json,
    Refused,
    invalid,
    malformed,
    not_found,
    wanted,
)
from sm_mlops.sandbox.github.routing import (
    ADMIN,
    ENVIRONMENT,
    REPO,
    Request,
    counted,
    route,
)
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import public


class Environments(Access):
    """Answers about environments."""

    @route("GET", f"{REPO}/environments", permission=("actions", "read"))
    def environments(self, request: Request, record: Record) -> Answer:
        rows = [
            self._environment(request, record, each) for each in record["_environments"].values()
        ]
        return counted("environments", rows, request)

    @route("GET", ENVIRONMENT, permission=("actions", "read"))
    def environment(self, request: Request, record: Record, environment: str) -> Json:
        return self._environment(request, record, _find(record, environment))

    @route("PUT", ENVIRONMENT, **ADMIN)
    def put_environment(self, request: Request, record: Record, environment: str) -> Json:
        """Create or change an environment; a rule that the body does not name is removed."""
        body = request.body
        self._check(record, body)
        policy = body.get("deployment_branch_policy")
        now = time.time()
        found = record["_environments"].get(environment.lower()) or {
            "id": self.accounts.next_id(),
            "name": environment,
            "created_at": now,
            "_policies": [],
        }
        custom_before = (found.get("_policy") or {}).get("custom_branch_policies")
        if custom_before and not (policy or {}).get("custom_branch_policies"):
            found["_policies"] = []
        found |= {
            "updated_at": now,
            "_wait": body.get("wait_timer", 0),
            "_reviewers": body.get("reviewers") or [],
            "_self": bool(body.get("prevent_self_review")),
            "_bypass": bool(body.get("can_admins_bypass", True)),
            "_policy": policy,
        }
        record["_environments"][environment.lower()] = found
        self.keep(record)
        return self._environment(request, record, found)

    def _check(self, record: Record, body: Json) -> None:
        """Raise Refused for rules that no environment, or none of this repository, can have."""
        reviewers = body.get("reviewers") or []
        policy = body.get("deployment_branch_policy")
        wait = body.get("wait_timer", 0)
        if not isinstance(wait, int) or not 0 <= wait <= 43_200:
            raise malformed("'wait_timer' must be between 0 and 43200.")
        if not isinstance(reviewers, list) or len(reviewers) > 6:
            raise malformed("No more than 6 reviewers are allowed.")
        if body.get("prevent_self_review") and not reviewers:
            raise malformed("Required reviewers must have at least one to set prevent_self_review.")
        if policy is not None:
            protected, custom = wanted(policy, protected_branches=bool, custom_branch_policies=bool)
            if protected == custom:
                raise malformed(
                    "protected_branches and custom_branch_policies cannot have the same value."
                )
        self._check_plan(record, bool(reviewers or wait), bool(policy))
        for each in reviewers:
            kind, identity = wanted(each, type=str, id=int)
            found = self.accounts.by_id(identity, kind)
            if found is None or not self._may_review(record, found, kind):
                raise invalid("Environment", "reviewers", "invalid", f"{kind} {identity}")

    def _check_plan(self, record: Record, protection: bool, policy: bool) -> None:
        """Raise Refused for what a private repository's plan does not include.

        Source: https://docs.github.com/en/actions/reference/workflows-and-actions/deployments-and-environments
        """
        plan = self.accounts.account(record["_owner"])["_plan"]
        if record["private"] and (
            (protection and plan != "enterprise") or (policy and plan == "free")
        ):
            rule = "required reviewers" if protection else "branch policy"
            raise Refused(
                422,
                "Failed to create the environment protection rule. Please ensure the billing plan "
                f"supports the {rule} protection rule.",
            )

    def _may_review(self, record: Record, found: Json, kind: str) -> bool:
        if kind == "Team":
            return found["slug"] in self.accounts.account(record["_owner"])["_teams"]
        return self.role(Actor("classic", found["login"]), record) is not None

    @route("DELETE", ENVIRONMENT, **ADMIN)
    def delete_environment(self, request: Request, record: Record, environment: str) -> Answer:
        _find(record, environment)
        del record["_environments"][environment.lower()]
        self.keep(record)
        return Answer(status=204)

    def _environment(self, request: Request, record: Record, found: Json) -> Json:
        url = f"{request.api}/repos/{record['full_name']}/environments/{found['name']}"
        rules: list[Json] = []
        if found["_wait"]:
            rules.append({"id": found["id"], "type": "wait_timer", "wait_timer": found["_wait"]})
        if found["_reviewers"]:
            shown = []
            for each in found["_reviewers"]:
                who = self.accounts.by_id(each["id"], each["type"]) or {}
                shown.append({"type": each["type"], "reviewer": public(who)})
            rules.append(
                {
                    "id": found["id"] + 1,
                    "type": "required_reviewers",
                    "prevent_self_review": found["_self"],
                    "reviewers": shown,
                }
            )
        if found["_policy"]:
            rules.append({"id": found["id"] + 2, "type": "branch_policy"})
        return {
            "id": found["id"],
            "name": found["name"],
            "url": url,
            "html_url": f"{request.base}/{record['full_name']}/deployments",
            "created_at": clock.text(found["created_at"]),
            "updated_at": clock.text(found["updated_at"]),
            "can_admins_bypass": found["_bypass"],
            "protection_rules": rules,
            "deployment_branch_policy": found["_policy"],
        }

    @route("GET", f"{ENVIRONMENT}/deployment-branch-policies", permission=("actions", "read"))
    def branch_policies(self, request: Request, record: Record, environment: str) -> Answer:
        rows = _find(record, environment)["_policies"]
        return counted("branch_policies", rows, request)

    @route("POST", f"{ENVIRONMENT}/deployment-branch-policies", **ADMIN)
    def add_branch_policy(self, request: Request, record: Record, environment: str) -> Answer:
        found = _find(record, environment)
        if not (found["_policy"] or {}).get("custom_branch_policies"):
            raise not_found()
        (name,) = wanted(request.body, name=str)
        kind = request.body.get("type", "branch")
        if any(each["name"] == name and each["type"] == kind for each in found["_policies"]):
            raise Refused(303, "See Other")
        policy = {"id": self.accounts.next_id(), "name": name, "type": kind}
        found["_policies"].append(policy)
        self.keep(record)
        return Answer(policy)

    @route("DELETE", f"{ENVIRONMENT}/deployment-branch-policies/{{policy}}", **ADMIN)
    def delete_branch_policy(
        self, request: Request, record: Record, environment: str, policy: str
    ) -> Answer:
        found = _find(record, environment)
        kept = [each for each in found["_policies"] if str(each["id"]) != policy]
        if len(kept) == len(found["_policies"]):
            raise not_found()
        found["_policies"] = kept
        self.keep(record)
        return Answer(status=204)


def _find(record: Record, name: str) -> Json:
    found: Json | None = record["_environments"].get(name.lower())
    if found is None:
        raise not_found()
    return found
