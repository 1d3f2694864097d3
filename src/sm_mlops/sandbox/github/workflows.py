"""Routes about the workflows of a repository: a dispatch starts a run. Nothing here executes it."""

from __future__ import annotations

from typing import Any

from sm_mlops.sandbox.github.access import Access
from sm_mlops.sandbox.github.answers import (
    Answer,
    Json,
    Refused,
    malformed,
    not_found,
    not_implemented,
    wanted,
)
from sm_mlops.sandbox.github.routing import REPO, Request, route
from sm_mlops.sandbox.storage import Record

RUN = "GitHubRun"
MOST_INPUTS = 25


class Workflows(Access):
    """Answers about workflows, and their runs as a person sees them."""

    @route(
        "POST", f"{REPO}/actions/workflows/{{workflow}}/dispatches", role="write",
        permission=("actions", "write"),
    )  # fmt: skip
    def dispatch(self, request: Request, record: Record, workflow: str) -> Answer:
        found = self._workflow(record, workflow)
        (ref,) = wanted(request.body, ref=str)
        name = record["full_name"]
        branch = ref.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.bare.commit(name, branch)
        if sha is None:
            raise Refused(422, f"No ref found for: {ref}")
        content = self.bare.read(name, sha, found["path"])
        if content is None:
            raise Refused(
                422,
                "Workflow does not exist or does not have a workflow_dispatch trigger in this "
                f"branch: {branch}",
            )
        described = _yaml(content)
        run: Json = {
            "id": self.accounts.next_id() + 10**9,
            "name": str(described.get("name", found["path"])),
            "workflow_id": found["id"],
            "head_branch": branch,
            "event": "workflow_dispatch",
            "status": "queued",
            "conclusion": None,
            "run_number": 1 + sum(
                row["workflow_id"] == found["id"] for row in self.store.all(RUN).values()
            ),
            "_inputs": _inputs(described, request.body.get("inputs") or {}),
            "_repository": name,
        }  # fmt: skip
        self.store.put(RUN, str(run["id"]), run)
        if not request.body.get("return_run_details"):
            return Answer(status=204)
        place = f"{name}/actions/runs/{run['id']}"
        return Answer(
            {
                "workflow_run_id": run["id"],
                "run_url": f"{request.api}/repos/{place}",
                "html_url": f"{request.base}/{place}",
            }
        )

    def _workflow(self, record: Record, name: str) -> Json:
        """Return a workflow of the default branch by its number, path or file. Raises Refused."""
        full_name = record["full_name"]
        sha = self.bare.branches(full_name).get(record["default_branch"])
        for path in self.bare.files(full_name, sha, ".github/workflows") if sha else ():
            if not path.endswith((".yml", ".yaml")) or path.count("/") != 2:
                continue
            known = record["_workflows"].get(path)
            if known is None:
                known = record["_workflows"][path] = {"id": self.accounts.next_id()}
                self.keep(record)
            if name in (str(known["id"]), path, path.rpartition("/")[2]):
                return {**known, "path": path}
        raise not_found()

    def runs_of(self, repository: str) -> list[Json]:
        """Return the runs of a repository, newest first, with the inputs they were given."""
        rows = [
            {**row, "inputs": row["_inputs"]}
            for row in self.store.all(RUN).values()
            if row["_repository"].lower() == repository.lower()
        ]
        return sorted(rows, key=lambda row: -row["id"])

    def finish(self, run: int, conclusion: str = "success") -> None:
        """End a run. Raises Refused."""
        record = self.store.find(RUN, str(run), not_found())
        record |= {"status": "completed", "conclusion": conclusion}
        self.store.put(RUN, str(run), record)


def _yaml(content: bytes) -> Json:
    import yaml

    try:
        found = yaml.safe_load(content)
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _inputs(described: Json, given: Any) -> Json:
    """Return the inputs of a run, defaults included. Raises Refused for what does not fit."""
    # YAML 1.1 reads the word `on` as true.
    events = described.get("on", described.get(True, {}))  # type: ignore[call-overload]
    if isinstance(events, str):
        events = {events: None}
    if isinstance(events, list):
        events = dict.fromkeys(events)
    if not isinstance(events, dict) or "workflow_dispatch" not in events:
        raise Refused(422, "Workflow does not have 'workflow_dispatch' trigger")
    if not isinstance(given, dict):
        raise malformed(f"For 'inputs', {given!r} is not an object.")
    if len(given) > MOST_INPUTS:
        raise malformed(f"For 'inputs', more than {MOST_INPUTS} properties are given.")
    known = (events["workflow_dispatch"] or {}).get("inputs") or {}
    unexpected = [name for name in given if name not in known]
    if unexpected:
        shown = ", ".join(f'"{name}"' for name in unexpected)
        raise Refused(422, f"Unexpected inputs provided: [{shown}]")
    found = {}
    for name, rule in known.items():
        rule = rule or {}
        value = given.get(name, rule.get("default"))
        if rule.get("required") and value in (None, ""):
            raise Refused(422, f"Required input '{name}' not provided")
        if "options" in rule:
            raise not_implemented("choices of a workflow's inputs")
        found[name] = value
    return found
