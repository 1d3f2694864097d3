"""When a schedule fires: rate(...) and cron(...) expressions of EventBridge Scheduler, in UTC.

Knows times only. Source: https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime

UNITS = {"minute": 60, "hour": 3600, "day": 86_400}
MOST_SECONDS = 365 * UNITS["day"]
RATE = re.compile(r"rate\(([1-9]\d*) (minute|hour|day)(s?)\)")
CRON = re.compile(r"cron\((\S+) (\S+) (\S+) (\S+) (\S+) (\S+)\)")
MONTHS, WEEKDAYS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC", "SUN MON TUE WED THU FRI SAT"
LAST_YEAR = 2199


class InvalidExpression(Exception):
    """The expression is none; the message says what is wrong with it."""


@dataclass(frozen=True)
class Rate:
    """Every so many seconds, the first time when the schedule begins."""

    seconds: int

    def following(self, moment: float, begin: float) -> float | None:
        """Return the first time after a moment."""
        return begin + max(0, (moment - begin) // self.seconds + 1) * self.seconds


@dataclass(frozen=True)
class Cron:
    """At minutes and hours of the days that fit."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: tuple[int, ...]
    fits: Callable[[date], bool]

    def following(self, moment: float, begin: float) -> float | None:
        """Return the first time after a moment, None if there is none."""
        after = datetime.fromtimestamp(moment, UTC)
        for day in self._days(after.date()):
            for hour in self.hours:
                for minute in self.minutes:
                    found = datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)
                    if found > after:
                        return found.timestamp()
        return None

    def _days(self, first: date) -> Iterator[date]:
        for year in self.years:
            for month in self.months:
                if (year, month) < (first.year, first.month):
                    continue
                for number in range(1, calendar.monthrange(year, month)[1] + 1):
                    day = date(year, month, number)
                    if day >= first and self.fits(day):
                        yield day


def parse(text: str) -> Rate | Cron:
    """Return what an expression means. Raises InvalidExpression."""
    rate = RATE.fullmatch(text)
    if rate:
        if (rate[1] == "1") == bool(rate[3]):
            raise InvalidExpression("a rate of 1 has a singular unit, any other a plural one")
        # What AWS takes at most is in no document.
        if len(rate[1]) > len(str(MOST_SECONDS)) or int(rate[1]) * UNITS[rate[2]] > MOST_SECONDS:
            raise InvalidExpression("the sandbox implements no rate of more than 365 days")
        return Rate(int(rate[1]) * UNITS[rate[2]])
    cron = CRON.fullmatch(text)
    if cron is None:
        raise InvalidExpression(f"{text} is neither rate(value unit) nor cron(six fields)")
    minute, hour, day, month, weekday, year = cron.groups()
    if (day == "?") == (weekday == "?"):
        raise InvalidExpression("exactly one of day-of-month and day-of-week must be ?")
    by_day = _day_of_month(day) if weekday == "?" else _day_of_week(weekday)
    return Cron(
        _numbers(minute, 0, 59),
        _numbers(hour, 0, 23),
        _numbers(month, 1, 12, MONTHS),
        _numbers(year, 1970, LAST_YEAR),
        by_day,
    )


def _day_of_month(text: str) -> Callable[[date], bool]:
    if text == "L":
        return lambda day: day.day == _length(day)
    if text.endswith("W"):
        raise InvalidExpression("the sandbox does not implement W in day-of-month")
    numbers = _numbers(text, 1, 31)
    return lambda day: day.day in numbers


def _day_of_week(text: str) -> Callable[[date], bool]:
    number, last, count = text[:-1], text.endswith("L"), text.partition("#")
    if last and number:
        wanted = _number(number, 1, 7, WEEKDAYS)
        return lambda day: _weekday(day) == wanted and day.day + 7 > _length(day)
    if count[1]:
        wanted, which = _number(count[0], 1, 7, WEEKDAYS), _number(count[2], 1, 5)
        return lambda day: _weekday(day) == wanted and (day.day + 6) // 7 == which
    numbers = _numbers("7" if last else text, 1, 7, WEEKDAYS)
    return lambda day: _weekday(day) in numbers


def _weekday(day: date) -> int:
    """Return 1 for Sunday to 7 for Saturday."""
    return day.isoweekday() % 7 + 1


def _length(day: date) -> int:
    return calendar.monthrange(day.year, day.month)[1]


def _numbers(text: str, low: int, high: int, names: str = "") -> tuple[int, ...]:
    """Return the numbers of a field such as 0/15, 1-5 or MON,WED."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, dash, last = span.partition("-")
        start = low if span == "*" else _number(first, low, high, names)
        end = _number(last, low, high, names) if dash else high
        if not slash and not dash and span != "*":
            end = start
        if end < start:
            raise InvalidExpression(f"{part} ends before it begins")
        found |= set(range(start, end + 1, _number(step, 1, high) if slash else 1))
    return tuple(sorted(found))


def _number(text: str, low: int, high: int, names: str = "") -> int:
    known = names.split()
    found = known.index(text) + 1 if text in known else int(text) if text.isdecimal() else -1
    if not low <= found <= high:
        raise InvalidExpression(f"{text} is not a value from {low} to {high}")
    return found
