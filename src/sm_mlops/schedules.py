"""What runs by itself: the sections `monitoring` and `retraining` of `mlops.yaml`.

Must not know how a check or a training is started.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from sm_mlops.errors import hint

MOST_HOURS = 168
MOST_DAYS = 365
_WEEKDAYS = "SUN MON TUE WED THU FRI SAT"
_DAY = f"([1-7]|{_WEEKDAYS.replace(' ', '|')})"
# Fields of a cron expression: name, least and greatest value, names of the values, what else.
# Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
_FIELDS = (
    ("minutes", 0, 59, "", ""),
    ("hours", 0, 23, "", ""),
    ("day-of-month", 1, 31, "", r"\?|L"),
    ("month", 1, 12, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", ""),
    ("day-of-week", 1, 7, _WEEKDAYS, rf"\?|L|{_DAY}L|{_DAY}#[1-5]"),
    ("year", 1970, 2199, "", ""),
)
TAKEN = "must not end in -monitor: the pipeline that checks another project's stages has that name"
BY_KIND = "A limit is of a kind of column, not of one column"
_OFTEN = "at most once an hour"
# Not today's month: a schedule that has ended must not make every command refuse the file.
_FIRST = (2026, 1)


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
            return f"{key} {wrong}, not {schedule!r}"
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


def not_a_schedule(text: str, since: tuple[int, int] = _FIRST) -> str | None:
    """Return what EventBridge Scheduler or an hourly window refuses in an expression, in words.

    An expression must have a day in or after the month `since`, a year and a month.
    """
    if rate := re.fullmatch(r"rate\(([1-9][0-9]*) (minute|hour|day)(s?)\)", text):
        return _wrong_rate(*rate.groups())
    if not (cron := re.fullmatch(r"cron\((.*)\)", text)):
        return "must be like rate(1 day) or cron(0 6 * * ? *), in UTC"
    values = cron[1].split(" ")
    if len(values) != len(_FIELDS):
        names = ", ".join(name for name, *_ in _FIELDS)
        return f"must be cron with six fields ({names}), one blank between them"
    fields = []
    for value, (name, least, most, names, special) in zip(values, _FIELDS, strict=True):
        found = _numbers(value, least, most, names.split())
        if not found and not (special and re.fullmatch(special, value)):
            if name == "day-of-month" and value.endswith("W"):
                return f"must be cron without W ({name})"
            return f"must be cron with {name} from {least} to {most}"
        fields.append(found)
    if (values[2] == "?") == (values[4] == "?"):
        return "must be cron with ? for either day-of-month or day-of-week"
    if not values[0].isdigit():
        return f"must be {_OFTEN}: one number of minutes"
    _, _, days, months, _, years = fields
    weekday = ""
    if values[4].endswith("#5"):
        days, weekday = range(29, 32), values[4].removesuffix("#5")
    ahead = [(year, month) for year in years for month in months if (year, month) >= since]
    # What is no number, such as L, is in every month.
    fires = any(_is_day(*month, day, weekday) for month in ahead for day in days or (1,))
    return None if fires else "must have a day that comes"


def _wrong_rate(digits: str, unit: str, plural: str) -> str | None:
    if (digits == "1") == bool(plural):
        return f"must be {f'rate(1 {unit})' if plural else f'rate({digits} {unit}s)'}"
    most = MOST_DAYS * {"minute": 1440, "hour": 24, "day": 1}[unit]
    # Python reads no numbers of thousands of digits.
    if len(digits) > len(str(most)) or int(digits) > most:
        return "must be at least once a year"
    return f"must be {_OFTEN}" if unit == "minute" and int(digits) < 60 else None


def _is_day(year: int, month: int, day: int, weekday: str) -> bool:
    """Return whether a day exists, and is on this day of the week, if one is given."""
    if day > calendar.monthrange(year, month)[1]:
        return False
    number = date(year, month, day).isoweekday() % 7 + 1
    return weekday in ("", str(number), _WEEKDAYS.split()[number - 1])


def _numbers(text: str, least: int, most: int, names: list[str]) -> Sequence[int]:
    """Return the values of a field, a list of values, ranges and steps; none if it is not one."""
    found: set[int] = set()
    for item in text.split(","):
        span, slash, step = item.partition("/")
        if slash and not re.fullmatch("[1-9][0-9]{0,3}", step):
            return []
        ends = [names.index(e) + least if e in names else e for e in span.split("-")]
        numbers = [int(end) for end in ends if re.fullmatch("[0-9]{1,4}", str(end))]
        if span == "*":
            numbers = [least, most]
        elif len(numbers) != len(ends) or len(ends) > 2 or numbers != sorted(numbers):
            return []
        if numbers[0] < least or numbers[-1] > most:
            return []
        last = most if slash and len(numbers) == 1 else numbers[-1]
        found.update(range(numbers[0], last + 1, int(step or 1)))
    return sorted(found)


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
