"""CloudFormation before strict judges, checkov and cfn-lint: the repo's endpoint, our templates.

checkov has its own environment, which `make test` sets up.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from generated import RENDERED, locked
from infra_case import KINDS, full
from infra_case import template as infra_template
from platform_case import (
    KEY,
    WATCHED,
    deployment,
    full_platform,
    full_project,
    platform,
    project,
    watch,
)
from rendering import ROOT, Rendered, once, run
from workflow_judges import BIN

PLATFORM = ROOT / "src" / "sm_mlops" / "platform"
CHECKOV = Path(sys.prefix) / "checkov" / "bin" / "checkov"
# Ids of checks by template, then by outcome.
Findings = dict[str, dict[str, set[str]]]
NETWORK_ISOLATION = "CKV_AWS_370"
# checkov does not look into Fn::If: it gets the templates with their conditions decided.
TEMPLATES = [
    RENDERED / "infra" / "endpoint.yml",
    PLATFORM / "platform.yml",
    PLATFORM / "project.yml",
    PLATFORM / "deploy.yml",
    PLATFORM / "watch.yml",
]

needs_checkov = pytest.mark.skipif(
    not CHECKOV.exists(),
    reason="checkov is missing in .venv/checkov: `make test`, or `make .venv/checkov/.ready`",
)


def checkov(templates: list[Path]) -> Findings:
    """Return the ids of checks by template, then by outcome. Asks no other machine."""
    done = subprocess.run(
        [
            *(CHECKOV, "--framework", "cloudformation", "--compact"),
            *("--skip-download", "--skip-results-upload", "--output", "json"),
            *(word for template in templates for word in ("--file", str(template))),
        ],
        # Without a sign-in it sends nothing; nor may it fetch the vendor's severities.
        env={
            "PATH": os.environ["PATH"],
            "HOME": tempfile.gettempdir(),
            "BC_SKIP_MAPPING": "TRUE",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    results = json.loads(done.stdout)["results"]
    assert not results["parsing_errors"]
    found: Findings = {}
    for outcome in ("passed", "failed"):
        for check in results[f"{outcome}_checks"]:
            name = Path(check["file_path"]).name
            found.setdefault(name, {"passed": set(), "failed": set()})
            found[name][outcome].add(check["check_id"])
    return found


@pytest.fixture(scope="session")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of templates: each kind of endpoint, the platform, projects."""
    folder = tmp_path_factory.mktemp("decided")

    def write(name: str, resources: dict[str, Any]) -> None:
        (folder / f"{name}.json").write_text(json.dumps({"Resources": resources}))

    for kind in KINDS:
        given = full(kind).everything().items()
        kinds = infra_template().resources
        write(kind, {n: {"Type": kinds[n]["Type"], "Properties": found} for n, found in given})
    stacks = {
        "platform": full_platform(),
        "platform-with-topic": platform(),
        "project": full_project("churn"),
        "project-with-key": project("churn", SignIn="iam-user"),
        "deploy": deployment("churn", OutputBucket="outputs", KeyArns=KEY),
        "watch": watch("churn", "production", **WATCHED),
    }
    for name, stack in stacks.items():
        logical = {
            n: {"Type": stack.kind(n), "Properties": stack.properties(n)} for n in stack.resources
        }
        write(name, logical)
    return folder


@pytest.fixture(scope="session")
def judged(decided: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """Return what checkov finds in what is decided, and where a role may write everywhere."""
    template = json.loads((decided / "real-time.json").read_text())
    [policy] = template["Resources"]["ExecutionRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        if statement["Action"] == "s3:PutObject":
            statement["Resource"] = "*"
    too_open = tmp_path_factory.mktemp("open") / "open.json"
    too_open.write_text(json.dumps(template))
    templates = [*sorted(decided.iterdir()), too_open]
    return once(tmp_path_factory, "checkov", lambda: checkov(templates))


@pytest.mark.long
@pytest.mark.slow
@needs_checkov
def test_checkov_finds_nothing_in_the_templates() -> None:
    found = checkov(TEMPLATES)
    for template in TEMPLATES:
        assert found[template.name]["passed"] and not found[template.name]["failed"]


def test_every_check_that_is_left_out_says_why() -> None:
    for template in TEMPLATES:
        text = template.read_text(encoding="utf-8")
        skips = re.findall(r"- id: CKV\w+\n\s+comment: (?:>-\n\s+)?(.+)\n", text)
        assert len(skips) == text.count("CKV")
        assert all(len(comment) > 40 for comment in skips)


@pytest.mark.slow
@needs_checkov
@pytest.mark.parametrize(
    ("kind", "failing"),
    [(kind, {NETWORK_ISOLATION} if kind == "serverless" else set()) for kind in KINDS],
    ids=KINDS,
)
def test_checkov_finds_nothing_but_what_serverless_cannot(
    judged: Findings, kind: str, failing: set[str]
) -> None:
    found = judged[f"{kind}.json"]
    assert found["failed"] == failing
    # The role's policy was judged, too: data exfiltration, writing without constraints.
    assert {"CKV_AWS_108", "CKV_AWS_111"} <= found["passed"]


def left_out(template: str) -> set[str]:
    """Return the checks that a template leaves out, each where it says why."""
    text = (PLATFORM / f"{template}.yml").read_text(encoding="utf-8")
    return set(re.findall(r"- id: (CKV\w+)", text))


@pytest.mark.slow
@needs_checkov
def test_checkov_finds_in_platform_and_project_what_is_left_out_for_a_reason(
    judged: Findings,
) -> None:
    found = [judged[f"{name}.json"]["failed"] for name in ("platform", "platform-with-topic")]
    assert found[0] | found[1] == left_out("platform")
    # Boundaries and roles were judged: privilege escalation, writing without constraints.
    assert {"CKV_AWS_110", "CKV_AWS_111"} <= judged["platform.json"]["passed"]
    assert judged["project.json"]["failed"] == set()
    assert judged["project-with-key.json"]["failed"] == left_out("project")
    assert {"CKV_AWS_110", "CKV_AWS_111"} <= judged["project-with-key.json"]["passed"]
    assert judged["watch.json"]["failed"] == left_out("watch")


@pytest.mark.slow
@needs_checkov
def test_checkov_would_find_a_role_that_may_write_everywhere(
    judged: Findings,
) -> None:
    assert "CKV_AWS_111" in judged["open.json"]["failed"]


@pytest.mark.slow
def test_cfn_lint_finds_nothing_in_what_each_kind_becomes(decided: Path) -> None:
    templates = [*TEMPLATES, *decided.glob("*.json")]
    assert len(templates) >= 9
    done = run(BIN / "cfn-lint", "--", *templates, cwd=decided)
    assert (done.code, done.out) == (0, "")


def test_cfn_lint_is_told_to_overlook_nothing(default: Rendered) -> None:
    for folder in (default.path, ROOT):
        assert not [file for file in folder.iterdir() if "cfnlintrc" in file.name], folder
    for template in TEMPLATES:
        assert "cfn-lint" not in template.read_text(encoding="utf-8")


def test_infra_is_copied_as_it_is(default: Rendered) -> None:
    files = [file for file in (RENDERED / "infra").rglob("*") if file.is_file()]
    assert files
    for file in files:
        copied = default.path / file.relative_to(RENDERED)
        assert copied.read_bytes() == file.read_bytes()


def test_checkov_is_pinned_with_hashes() -> None:
    lock = (ROOT / "checkov.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", lock.strip())
    assert "checkov" in locked(ROOT / "checkov.lock")
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"//|@|index|find-links|#", lock)
