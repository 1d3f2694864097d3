"""Dates in an S3 address of `data.path`: `{today}`, `{today-1}`, or the days `{today-6..today}`.

A day is written as 2026-11-29, or as strftime writes it after a colon: `{today:%Y/%m/%d}`. Days are
those of UTC.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

_DAY = r"today(?:-(\d{1,4}))?"
# First day, the range if there is one, its last day, how a day is written.
_PLACE = re.compile(rf"\{{{_DAY}(\.\.{_DAY})?(?::((?:%[YmdjGV]|[A-Za-z0-9=/_.-])+))?\}}")
MOST_DAYS = 366


def is_window(path: str) -> bool:
    """Return whether an address names several days."""
    return path.startswith("s3://") and any(place[2] for place in _PLACE.finditer(path))


def fixed(path: str) -> str:
    """Return what stands before the first date."""
    return path.partition("{")[0] if path.startswith("s3://") else path


def problem(path: str, *, isolated: bool = False) -> str:
    """Return what is wrong with an address and the dates in it; empty if nothing is.

    `isolated`: the jobs have no network, so they cannot download several folders.
    """
    scheme, is_address, _ = path.partition("://")
    if not is_address:
        return ""
    if scheme != "s3":
        return "only files here and s3://bucket/prefix/ are read"
    if odd := re.search(r"\{[^{}]*\}?|\}", _PLACE.sub("", path)):
        return f"{odd[0]} is no date; write {{today}}, {{today-1}} or {{today-6..today}}"
    bucket = path.removeprefix("s3://").partition("/")[0]
    if "{" in bucket:
        return "the name of a bucket holds no date"
    if wrong := not_a_bucket(bucket):
        return wrong
    if sum(bool(place[2]) for place in _PLACE.finditer(path)) > 1:
        return "only one {...} may name several days; write them as {today-6..today:%Y/%m/%d}"
    for place in _PLACE.finditer(path):
        days = _days(place)
        if not 0 < len(days) <= MOST_DAYS:
            return (
                f"{place[0]} names {len(days)} days; write the earlier first, at most {MOST_DAYS}"
            )
    if isolated and is_window(path):
        return "several days cannot be combined with aws.network_isolation: the job downloads them"
    return ""


def not_a_bucket(name: str, where: str = "") -> str:
    """Return why a text is not the name of a bucket, after `where` it stands; empty if it is one.

    What has an @ is not shown: there may be a sign-in before it.
    """
    # Old buckets have names that new ones may not have.
    if re.fullmatch(r"[A-Za-z0-9._-]{3,255}", name):
        return ""
    said = "it" if "@" in name else repr(name)
    return (
        f"{where}{said} is not the name of a bucket, which has 3 to 63 letters, digits, dots and "
        "hyphens"
    )


def addresses(path: str, today: date) -> tuple[str, ...]:
    """Return the address of each day, the earliest first; without a window there is one."""
    window = next((place for place in _PLACE.finditer(path) if place[2]), None)
    if not path.startswith("s3://"):
        return (path,)
    shifts = _days(window) if window else range(1)
    found = []
    for shift in shifts:
        text = path
        if window:
            text = path.replace(window[0], _written(window, today - timedelta(days=shift)))
        found.append(_PLACE.sub(lambda place: _written(place, _day(place, today)), text))
    return tuple(found)


def _days(place: re.Match[str]) -> range:
    """Return how many days ago each day is, the earliest first."""
    first = int(place[1] or 0)
    last = int(place[3] or 0) if place[2] else first
    return range(first, last - 1, -1)


def _day(place: re.Match[str], today: date) -> date:
    return today - timedelta(days=int(place[1] or 0))


def _written(place: re.Match[str], day: date) -> str:
    return day.strftime(place[4] or "%Y-%m-%d")
