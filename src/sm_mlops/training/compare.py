"""What differs between versions: settings, data, metrics, learning curves and code.

A version carries its settings in version.json beside its evaluation, and in its metadata. Versions
of older tools have less, and what is unknown is not called a difference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sm_mlops import commit, objects, registry
from sm_mlops.aws import DENIED, Aws, ignoring
from sm_mlops.commit import git, short
from sm_mlops.errors import MlopsError
from sm_mlops.registry import Version
from sm_mlops.training import artifacts

# In the order of the version's metadata Gate and Instances.
_GATE, _INSTANCES = ("metric", "threshold", "tolerance"), ("preprocess", "train", "evaluate")
BARS = "▁▂▃▄▅▆▇█"
WIDTH = 30  # characters of a curve


@dataclass(frozen=True)
class Side:
    """One version with what is known about it; `notes` say what is not, and why."""

    version: Version
    settings: dict[str, Any]
    metrics: dict[str, float]
    training: dict[str, Any]
    notes: tuple[str, ...]


def load(aws: Aws, number: int) -> Side:
    """Return a version with its settings and metrics. Raise MlopsError if it does not exist."""
    found = registry.version(aws, number)
    about, gate = (_beside(aws, found, name) for name in ("version.json", "gate.json"))
    notes = []
    if found.approval == "Rejected":
        notes.append(f"version {number} is rejected")
    if not found.artifacts or not all(objects.exists(aws, uri) for uri in found.artifacts):
        notes.append(f"version {number} no longer has its artifact, so it cannot be deployed")
    if gate is None:
        notes.append(f"version {number} no longer has its evaluation")
    elif about is None:
        notes.append(f"version {number} was made by an older tool: only metrics and data are known")
    place = artifacts.trained_on(aws, found.execution)
    address = {"data.address": place} if place else {}
    rows = {f"data.rows.{part}": count for part, count in (gate or {}).get("rows", {}).items()}
    metrics = {name: entry["value"] for name, entry in (gate or {}).get("metrics", {}).items()}
    return Side(
        found,
        {**_registered(found), **address, **rows, **(about or {}).get("settings", {})},
        {name: value for name, value in metrics.items() if abs(value) < 1e300},
        (about or {}).get("training", {}),
        tuple(notes),
    )


def settings(aws: Aws, found: Version) -> dict[str, Any] | None:
    """Return the settings of a version by name; None if an older tool made it."""
    about = _beside(aws, found, "version.json")
    return None if about is None else {**_registered(found), **about["settings"]}


def _beside(aws: Aws, found: Version, name: str) -> dict[str, Any] | None:
    """Return the content of a file beside the evaluation of a version, if there is one."""
    with ignoring(*DENIED):
        folder = found.statistics.rpartition("/")[0]
        content = objects.find(aws, f"{folder}/{name}") if folder else None
        return None if content is None else dict(json.loads(content))
    return None


def _registered(found: Version) -> dict[str, Any]:
    metadata = found.metadata
    known = {"data.hash": metadata["DataHash"]} if "DataHash" in metadata else {}
    limits = re.split(" - (?:threshold|tolerance) ", metadata.get("Gate", ""))
    if len(limits) == len(_GATE):
        known |= {f"gate.{name}": limit for name, limit in zip(_GATE, limits, strict=True)}
    for name, instance in zip(_INSTANCES, metadata.get("Instances", "").split(), strict=False):
        known[f"compute.{name}.instance"] = instance
    return known | ({"image": found.image} if found.image else {})


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return the settings that differ by name, in the order of mlops.yaml's sections."""
    names = sorted(dict.fromkeys([*after, *before]), key=lambda name: name.split(".")[0])
    return {
        name: (before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def compare(aws: Aws, first: int, second: int) -> dict[str, Any]:
    """Return what differs between two versions, for people and scripts.

    Each difference is a pair: of the first version, of the second. Raise MlopsError if they are the
    same, or one of them does not exist.
    """
    if first == second:
        raise MlopsError(f"version {first} does not differ from itself: name two versions")
    sides = [load(aws, number) for number in (first, second)]
    before, after = sides
    known = all("hyperparameters" in " ".join(side.settings) for side in sides)
    shared = before.settings.keys() & after.settings.keys()
    pairs = differences(before.settings, after.settings)
    names = dict.fromkeys([*before.metrics, *after.metrics])
    return {
        "versions": [first, second],
        "notes": [note for side in sides for note in side.notes],
        "settings": {name: pair for name, pair in pairs.items() if known or name in shared},
        "metrics": {name: [side.metrics.get(name) for side in sides] for name in names},
        "curves": [side.training for side in sides],
        "code": code(aws, before.version.commit, after.version.commit),
    }


def code(aws: Aws, before: str, after: str) -> dict[str, Any]:
    """Return the commits, how many lie between them, and the files that differ, as git knows."""
    found: dict[str, Any] = {"commits": [before, after], "between": None, "files": None, "why": ""}
    dirty = [at for at in (before, after) if at.endswith("-dirty")]
    ends = [at.removesuffix("-dirty") for at in (before, after)]
    if "unknown" in ends or not all(ends):
        return {**found, "why": "a version was trained outside of git"}
    try:
        diff = git(
            aws.settings.root, "diff", "--relative", "--name-only", *ends, "--", *commit.TRAINS
        )
        count = git(aws.settings.root, "rev-list", "--count", f"{ends[0]}..{ends[1]}")
    except FileNotFoundError:
        return {**found, "why": "git is not installed"}
    if diff.returncode:
        return {**found, "why": "this clone lacks a commit: git fetch"}
    why = f"{short(dirty[0])} had uncommitted changes, which no one can see" if dirty else ""
    files = diff.stdout.splitlines()
    return {**found, "between": int(count.stdout or 0), "files": files, "why": why}


def shown(pair: Sequence[Any]) -> list[str]:
    """Return both values of a setting as text; of two lists only what the other one lacks."""
    texts = []
    for value, other in (pair, pair[::-1]):
        if isinstance(value, list):
            missing = [str(item) for item in value if item not in (other or ())]
            texts.append(", ".join(missing) or "-")
        else:
            texts.append("-" if value is None else str(value))
    return texts


def sparkline(values: list[float]) -> str:
    """Return a curve as one line of bars, from its lowest value to its highest."""
    if not values:
        return ""
    step = max(1, len(values) / WIDTH)
    some = [values[int(i * step)] for i in range(min(WIDTH, len(values)))]
    low, high = min(some), max(some)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0
    return "".join(BARS[round((value - low) * scale)] for value in some)
