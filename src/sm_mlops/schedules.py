"""What runs by itself: the sections `monitoring` and `retraining` of `mlops.yaml`.

Must not know how a check or a training is started.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sm_mlops.errors import hint

MOST_HOURS = 168
MOST_DAYS = 365
_DAY = "([1-7]|SUN|MON|TUE|WED|THU|FRI|SAT)"
# Fields of a cron expression: name, least and greatest value, names of the values, what else.
# Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
_FIELDS = (
    ("minutes", 0, 59, "", ""),
    ("hours", 0, 23, "", ""),
    ("day-of-month", 1, 31, "", r"\?|L"),
    ("month", 1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", ""),
    ("day-of-week", 1, 7, "SUN MON TUE WED THU FRI SAT", rf"\?|L|{_DAY}L|{_DAY}#[1-5]"),
    ("year", 1970, 2199, "", ""),
)
TAKEN = "must not end in -monitor: the pipeline that checks another project's stages has that name"
_OFTEN = "at most once an hour"


@dataclass(frozen=True)
class NumberLimits:
    """Shares of the rows, and how far a distribution may move."""

    missing: float = 0.05
    outside: float = 0.05
    drift: float = 0.15


@dataclass(frozen=True)
class TextLimits:
    missing: float = 0.05
    new: float = 0.05
    drift: float = 0.15


@dataclass(frozen=True)
class DateLimits:
    missing: float = 0.05


@dataclass(frozen=True)
class Limits:
    """By kind of column; of the predictions' drift; of the gate's metric, by its worsening."""

    number: NumberLimits = field(default_factory=NumberLimits)
    text: TextLimits = field(default_factory=TextLimits)
    date: DateLimits = field(default_factory=DateLimits)
    prediction: float = 0.2
    quality: float = 0.1


@dataclass(frozen=True)
class Monitoring:
    """`capture` is a percentage of the requests."""

    stages: tuple[str, ...] = ()
    schedule: str = "rate(1 day)"
    window_hours: int = 24
    capture: int = 100
    min_rows: int = 500
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Retraining:
    schedule: str | None = None
    on_drift: bool = False
    cool_down_days: int = 7


def problem(
    monitoring: Monitoring, retraining: Retraining, infra: Path, isolated: bool
) -> str | None:
    """Return the first thing that is wrong with the two sections, in words; None for nothing.

    `infra` is the folder of the stages' files; `isolated`, whether jobs are in network isolation.
    """
    known = sorted(file.stem for file in infra.glob("[!.]*.json"))
    for stage in monitoring.stages:
        if stage not in known:
            return f"monitoring.stages: no stage {stage}; {hint(stage, known)}"
        if monitoring.stages.count(stage) > 1:
            return f"monitoring.stages: {stage} is there twice"
    for key, schedule in (
        ("monitoring.schedule", monitoring.schedule),
        ("retraining.schedule", retraining.schedule),
    ):
        if wrong := schedule is not None and not_a_schedule(schedule):
            return f"{key} {wrong}, not {schedule}"
    for key, number, least, most in (
        ("monitoring.window_hours", monitoring.window_hours, 1, MOST_HOURS),
        ("monitoring.capture", monitoring.capture, 1, 100),
        ("monitoring.min_rows", monitoring.min_rows, 1, None),
        ("retraining.cool_down_days", retraining.cool_down_days, 1, MOST_DAYS),
    ):
        if number < least or (most is not None and number > most):
            allowed = f"at least {least}" if most is None else f"from {least} to {most}"
            return f"{key} must be {allowed}, not {number}"
    if retraining.on_drift and not monitoring.stages:
        return "retraining.on_drift needs a stage that is checked: name one in monitoring.stages"
    if monitoring.stages and isolated:
        return (
            "monitoring.stages cannot be combined with aws.network_isolation: the check lists the "
            "captured requests, and an isolated job reaches no S3"
        )
    return next(_wrong_limits(monitoring.limits), None)


def not_a_schedule(text: str) -> str | None:
    """Return what EventBridge Scheduler or an hourly window refuses in an expression, in words."""
    if rate := re.fullmatch(r"rate\(([1-9][0-9]*) (minute|hour|day)(s?)\)", text):
        number, unit = int(rate[1]), rate[2]
        if (number == 1) == bool(rate[3]):
            return f"must be {f'rate(1 {unit})' if number == 1 else f'rate({number} {unit}s)'}"
        return f"must be {_OFTEN}" if unit == "minute" and number < 60 else None
    if not (cron := re.fullmatch(r"cron\((.*)\)", text)):
        return "must be like rate(1 day) or cron(0 6 * * ? *), in UTC"
    values = cron[1].split(" ")
    if len(values) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        return f"must be cron with six fields ({names}), one blank between them"
    for value, (name, least, most, names, special) in zip(values, _FIELDS, strict=True):
        if not _fits(value, least, most, names.split(), special):
            return f"must be cron with {name} from {least} to {most}"
    if (values[2] == "?") == (values[4] == "?"):
        return "must be cron with ? for either day-of-month or day-of-week"
    return None if values[0].isdigit() else f"must be {_OFTEN}: one number of minutes"


def _fits(text: str, least: int, most: int, names: list[str], special: str) -> bool:
    """Return whether a field is a list of values, ranges and steps within its bounds."""
    if special and re.fullmatch(special, text):
        return True
    for item in text.split(","):
        span, slash, step = item.partition("/")
        if slash and not re.fullmatch("[1-9][0-9]{0,3}", step):
            return False
        if span == "*":
            continue
        ends = [names.index(e) + least if e in names else e for e in span.split("-")]
        numbers = [int(end) for end in ends if re.fullmatch("[0-9]{1,4}", str(end))]
        if len(numbers) != len(ends) or len(ends) > 2 or numbers != sorted(numbers):
            return False
        if numbers[0] < least or numbers[-1] > most:
            return False
    return True


def _wrong_limits(limits: Limits) -> Iterator[str]:
    """Yield what is wrong with each limit."""
    for name, value in asdict(limits).items():
        for kind, limit in value.items() if isinstance(value, dict) else [("", value)]:
            key = f"monitoring.limits.{name}" + (f".{kind}" if kind else "")
            share = kind in ("missing", "outside", "new")
            if share and not 0 <= limit <= 1:
                yield f"{key} must be a share from 0 to 1, not {limit:g}"
            if not share and limit <= 0:
                yield f"{key} must be above 0, not {limit:g}"
