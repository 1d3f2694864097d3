"""The rendered repo's CloudFormation before strict judges: checkov and cfn-lint.

checkov lives in an environment of its own, which `make test` sets up.
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
from rendering import ROOT, Rendered

CHECKOV = Path(sys.prefix) / "checkov" / "bin" / "checkov"
NETWORK_ISOLATION = "CKV_AWS_370"
# checkov does not look into Fn::If: it gets the templates with their conditions decided.
RESOLVE = """
import json, pathlib, sys
sys.path.insert(0, "tests")
from infra_case import KINDS, full, template
from platform_case import full_platform, full_project, project
def write(name, resources):
    pathlib.Path(sys.argv[1], f"{name}.json").write_text(json.dumps({"Resources": resources}))
for kind in KINDS:
    write(kind, {
        name: {"Type": template().resources[name]["Type"], "Properties": properties}
        for name, properties in full(kind).everything().items()
    })
stacks = {
    "platform": full_platform(),
    "project": full_project("churn"),
    "project-with-key": project("churn", SignIn="iam-user"),
}
for name, stack in stacks.items():
    write(name, {
        logical: {"Type": stack.kind(logical), "Properties": stack.properties(logical)}
        for logical in stack.resources
    })
"""

needs_checkov = pytest.mark.skipif(
    not CHECKOV.exists(),
    reason="checkov is missing in .venv/checkov: `make test`, or `make .venv/checkov/.ready`",
)


def checkov(*templates: Path) -> dict[str, Any]:
    """What checkov finds in CloudFormation templates, asking no other machine."""
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
    found: dict[str, Any] = json.loads(done.stdout)
    assert not found["results"]["parsing_errors"]
    return found


def ids(found: dict[str, Any], outcome: str) -> set[str]:
    """The checks with this outcome."""
    return {check["check_id"] for check in found["results"].get(f"{outcome}_checks", ())}


@pytest.fixture(scope="session")
def decided(default: Rendered, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one template for each kind of endpoint, for the platform and for projects."""
    folder = tmp_path_factory.mktemp("decided")
    done = default.run("python", "-c", RESOLVE, folder, PYTHONDONTWRITEBYTECODE="1")
    assert done.code == 0, done.err
    return folder


@pytest.mark.slow
@needs_checkov
def test_checkov_finds_nothing_in_the_templates(default: Rendered) -> None:
    found = checkov(*sorted((default.path / "infra").glob("*.yml")))
    assert ids(found, "passed")
    assert not found["results"].get("failed_checks")


def test_every_check_that_is_left_out_says_why() -> None:
    for template in (RENDERED / "infra").glob("*.yml"):
        text = template.read_text(encoding="utf-8")
        skips = re.findall(r"- id: (CKV\w+)\n\s+comment: >-\n\s+(.+)\n", text)
        assert len(skips) == text.count("CKV")
        assert all(len(comment) > 40 for _, comment in skips)


@pytest.mark.slow
@needs_checkov
@pytest.mark.parametrize(
    ("kind", "failing"),
    [("real-time", set()), ("serverless", {NETWORK_ISOLATION}), ("asynchronous", set())],
    ids=["real-time", "serverless", "asynchronous"],
)
def test_checkov_finds_nothing_but_what_serverless_cannot(
    decided: Path, kind: str, failing: set[str]
) -> None:
    found = checkov(decided / f"{kind}.json")
    assert ids(found, "failed") == failing
    # The role's policy was judged, too: data exfiltration, writing without constraints.
    assert {"CKV_AWS_108", "CKV_AWS_111"} <= ids(found, "passed")


def left_out(template: str) -> set[str]:
    """The checks that a template leaves out, each where it says why."""
    text = (RENDERED / "infra" / f"{template}.yml").read_text(encoding="utf-8")
    return set(re.findall(r"- id: (CKV\w+)", text))


@pytest.mark.slow
@needs_checkov
def test_checkov_finds_in_platform_and_project_what_is_left_out_for_a_reason(
    decided: Path,
) -> None:
    found = checkov(decided / "platform.json")
    assert ids(found, "failed") == left_out("platform")
    # Boundaries and roles were judged: privilege escalation, writing without constraints.
    assert {"CKV_AWS_110", "CKV_AWS_111"} <= ids(found, "passed")
    assert ids(checkov(decided / "project.json"), "failed") == set()
    keyed = checkov(decided / "project-with-key.json")
    assert ids(keyed, "failed") == left_out("project")
    assert {"CKV_AWS_110", "CKV_AWS_111"} <= ids(keyed, "passed")


@pytest.mark.slow
@needs_checkov
def test_checkov_would_find_a_role_that_may_write_everywhere(decided: Path, tmp_path: Path) -> None:
    template = json.loads((decided / "real-time.json").read_text())
    [policy] = template["Resources"]["ExecutionRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        if statement["Sid"] == "KeepCapturedData":
            statement["Resource"] = "*"
    (tmp_path / "open.json").write_text(json.dumps(template))
    assert "CKV_AWS_111" in ids(checkov(tmp_path / "open.json"), "failed")


@pytest.mark.slow
def test_cfn_lint_finds_nothing_in_what_each_kind_becomes(default: Rendered, decided: Path) -> None:
    templates = [*(default.path / "infra").glob("*.yml"), *decided.glob("*.json")]
    assert len(templates) >= 9
    done = default.run(Path(sys.prefix) / "bin" / "cfn-lint", "--", *templates)
    assert (done.code, done.out) == (0, "")


def test_cfn_lint_is_told_to_overlook_nothing(default: Rendered) -> None:
    assert not [file for file in default.files() if file.endswith(("cfnlintrc", "cfnlintrc.yaml"))]
    for template in (default.path / "infra").glob("*.yml"):
        assert "cfn-lint" not in template.read_text(encoding="utf-8")
    assert re.search(r'/bin/cfn-lint" infra/\*\.yml$', default.text("Makefile"), re.MULTILINE)


def test_infra_is_copied_as_it_is(default: Rendered) -> None:
    for file in (RENDERED / "infra").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            copied = default.path / file.relative_to(RENDERED)
            assert copied.read_bytes() == file.read_bytes()


def test_checkov_is_pinned_with_hashes() -> None:
    lock = (ROOT / "checkov.lock").read_text(encoding="utf-8")
    blocks = re.split(r"\n(?=[a-z0-9])", lock.strip())
    assert "checkov" in locked(ROOT / "checkov.lock")
    assert all("--hash=sha256:" in block for block in blocks)
    assert not re.search(r"//|@|index|find-links|#", lock)
