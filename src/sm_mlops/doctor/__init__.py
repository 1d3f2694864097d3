"""`mlops doctor`: does everything exist that approvals, training and deployments need?

Only reads. What cannot be read is reported as such, and does not stop the other checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from sm_mlops.aws import Aws
from sm_mlops.doctor import account, image, parts, platform, quotas, tool
from sm_mlops.doctor.scene import Finding, Scene, State, Unknown, explain, warning

WORKERS = 12


@dataclass(frozen=True)
class Check:
    """`look` may raise whatever AWS or GitHub raise. What needs the platform is skipped where there
    is none, which the platform's own check reports."""

    name: str
    look: Callable[[Scene], Iterable[Finding]]
    needs_aws: bool = True
    needs_github: bool = False
    needs_platform: bool = False


# In the order of the table.
CHECKS = (
    Check("version", tool.version, needs_aws=False),
    Check("tool in workflows", parts.tool, needs_aws=False, needs_github=True),
    Check("permissions", account.rights),
    Check("GitHub sign-in", account.github_sign_in, needs_aws=False),
    Check("tool version", platform.drift, needs_platform=True),
    Check("platform", parts.platform),
    Check("connection to GitHub", platform.connection, needs_platform=True),
    Check("Service Catalog product", platform.product, needs_platform=True),
    Check("permissions boundaries", platform.boundaries, needs_platform=True),
    Check("launch role", platform.launch_role, needs_platform=True),
    Check("Studio domain", parts.domain),
    Check("workflow sign-in", platform.workflow_sign_in, needs_platform=True),
    Check("trigger credential", platform.credential, needs_platform=True),
    Check("trigger", platform.trigger, needs_platform=True),
    Check("failed approvals", platform.failed_approvals, needs_platform=True),
    Check("subscribers", platform.subscribers, needs_platform=True),
    Check("GitHub repository", parts.repository, needs_aws=False, needs_github=True),
    Check("SageMaker project", parts.project, needs_github=True),
    Check("GitHub settings", parts.settings, needs_github=True),
    Check("first push", parts.push, needs_aws=False, needs_github=True),
    Check("image", image.image),
    Check("quotas", quotas.counts),
    Check("instance quotas", quotas.instances),
)


def examine(aws: Aws, environment: Mapping[str, str]) -> list[Finding]:
    """Return what all checks find, in the order of CHECKS; the sign-in to AWS first."""
    scene = Scene(aws, environment)
    first = _run(Check("AWS sign-in", account.sign_in), scene)
    signed_in = all(finding.state is not State.FAILED for finding in first)
    due = [
        check
        for check in CHECKS
        if (signed_in or not check.needs_aws) and (scene.hub is not None or not check.needs_github)
    ]
    # Before the threads start: they all need it.
    if signed_in:
        scene.look_ahead()
    with ThreadPoolExecutor(WORKERS) as pool:
        found = list(pool.map(lambda check: _run(check, scene), due))
    left = [check.name for check in CHECKS if check not in due]
    if left:
        first.append(replace(warning(f"{', '.join(left)}: sign in first"), check="not checked"))
    return [*first, *(finding for each in found for finding in each)]


def _run(check: Check, scene: Scene) -> list[Finding]:
    """Return what a check finds, or why it could not look. A bug is raised."""
    try:
        is_due = not check.needs_platform or scene.platform is not None
        found = list(check.look(scene)) if is_due else []
    except Unknown:
        # Its own check reports why.
        found = [warning("not checked, because the platform could not be read")]
    except Exception as error:
        found = [explain(error, scene.aws.settings.project.region)]
    return [replace(item, check=check.name) for item in found]
