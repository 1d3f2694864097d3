"""Measure the platform's permissions boundaries, which list the data and keys of all repos.

IAM rejects one that is too long, and CloudFormation reports that only halfway through an update.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from sm_mlops import platform, templates
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import needs
from sm_mlops.bootstrap.parameters import TEMPLATE
from sm_mlops.errors import MlopsError

# For a managed policy, without white space:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
LIMIT = 6_144
# How full a boundary may be after a remedy: less than what `mlops doctor` warns of.
ENOUGH = 0.75
DATA, KEYS = "DataLocations", "KeyArns"
LISTS = (DATA, KEYS)


@dataclass(frozen=True)
class Boundaries:
    """The platform's boundaries, as this tool's template defines them for this artifact bucket."""

    aws: Aws
    bucket: str

    def lengths(self, parameters: Mapping[str, str]) -> dict[str, int]:
        """Return the characters that IAM counts in each boundary, by its name in the template."""
        facts = self._facts(parameters)
        return {
            logical: len(json.dumps(_evaluated(policy, facts), separators=(",", ":")))
            for logical, policy in _policies().items()
        }

    def used(self, parameters: Mapping[str, str]) -> dict[str, tuple[int, int]]:
        """Return how many characters the lists have in each boundary, and how many they may."""
        empty, now = self.lengths({}), self.lengths(parameters)
        return {name: (now[name] - empty[name], LIMIT - empty[name]) for name in now}

    def require_space(self, parameters: Mapping[str, str]) -> None:
        """Raise MlopsError if a boundary would be too long, with the command that shortens it."""
        lengths = self.lengths(parameters)
        longest = max(lengths, key=lengths.__getitem__)
        if lengths[longest] > LIMIT:
            raise MlopsError(
                f"{longest}, which names the data and keys of all repos, would have "
                f"{lengths[longest]:,} characters; IAM allows {LIMIT:,}. "
                f"List whole buckets or all keys instead: {self.remedy(parameters)}"
            )

    def remedy(self, parameters: Mapping[str, str]) -> str:
        """Return the command that names whole buckets, all keys of an account, or both, as far as
        needed; an example if that is not enough."""
        for enough, names in product((ENOUGH, 1), ((DATA,), (KEYS,), LISTS)):
            wide = {name: needs.widened(parameters.get(name, "")) for name in names}
            used = self.used({**parameters, **wide})
            if all(length <= enough * most for length, most in used.values()):
                return self._command(wide)
        return self._command({DATA: f"{self._bucket_arn('acme-')}*,..."}) + " (an example)"

    def _command(self, parameters: Mapping[str, str]) -> str:
        # Quoted, because a shell may expand the stars.
        options = [f"--platform '{name}={value}'" for name, value in parameters.items()]
        return " ".join([self.aws.command, "bootstrap", *options])

    def require_apart(self, locations: str) -> None:
        """Raise MlopsError for data locations in the artifact bucket, or that may include it: its
        projects would no longer be apart."""
        bucket = self._bucket_arn(self.bucket)
        for item in needs.items(locations):
            if item.partition("/")[0] == bucket or needs.covers(item, bucket):
                raise MlopsError(
                    f"{DATA}, of --platform or of data.path in mlops.yaml: {item} includes the "
                    "artifact bucket, where a project reads only under its own name"
                )

    def _bucket_arn(self, name: str) -> str:
        return f"arn:{self.aws.settings.partition}:s3:::{name}"

    def _facts(self, parameters: Mapping[str, str]) -> dict[str, Any]:
        """Return the values and conditions that the boundaries refer to."""
        region, lists = self.aws.settings.project.region, {}
        for name in LISTS:
            lists[name] = list(needs.items(parameters.get(name, "")))
        policy = f"policy/sm-mlops-boundary-{region}"
        return {
            "AWS::AccountId": self.aws.account,
            "AWS::NoValue": None,
            "AWS::Partition": self.aws.settings.partition,
            "AWS::Region": region,
            "ArtifactBucket.Arn": self._bucket_arn(self.bucket),
            "Boundary": f"arn:{self.aws.settings.partition}:iam::{self.aws.account}:{policy}",
            "HasDataLocations": bool(lists[DATA]),
            "HasKeys": bool(lists[KEYS]),
            **lists,
        }


def _policies() -> dict[str, Any]:
    """Return the documents of the boundaries as the template has them, by their names there."""
    return {
        logical: resource["Properties"]["PolicyDocument"]
        for logical, resource in templates.resources(platform.FOLDER / TEMPLATE).items()
        if resource["Type"] == "AWS::IAM::ManagedPolicy"
    }


def _evaluated(node: Any, facts: Mapping[str, Any]) -> Any:
    """Return a part of a template with the values of CloudFormation's functions. Of a fork, an
    unknown reference counts as its name, and an unknown condition as true."""
    match node:
        case {"Fn::If": [condition, then, otherwise]}:
            return _evaluated(then if facts.get(condition, True) else otherwise, facts)
        case {"Ref": name}:
            return facts.get(name, name)
        case {"Fn::GetAtt": [resource, attribute]}:
            return facts.get(f"{resource}.{attribute}", resource)
        case {"Fn::Sub": str(text)}:
            named = re.sub(r"\$\{([^!}]+)\}", lambda name: facts.get(name[1], name[1]), text)
            return named.replace("${!", "${")
        case dict():
            return {key: _evaluated(value, facts) for key, value in node.items()}
        case list():
            found = [_evaluated(item, facts) for item in node]
            return [item for item in found if item is not None]
    return node
