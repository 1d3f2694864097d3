"""The result of a monitored window as one self-contained HTML page, worst columns first.

The same input gives the same bytes. Must not know how a result is made, or where it is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from sm_mlops.tabular import figures
from sm_mlops.tabular.figures import BLUE, LINES, ORANGE, SMALL, figure, short
from sm_mlops.tabular.page import document, tiles
from sm_mlops.tabular.page import escaped as _e
from sm_mlops.tabular.page import table as _table
from sm_mlops.tabular.text import number

Result = Mapping[str, Any]

DRAWN = 9  # columns with a figure
LISTED = 50  # columns in the table
TREND = (9.6, 2.6)  # inches
STATES = {
    "ok": "Nothing is above its limit.",
    "violation": "Something is above its limit.",
    "too few rows": "There are too few rows to judge.",
    "no requests": "No requests were captured.",
    "no baseline": "The version that answered has no baseline to compare with.",
}
KINDS = {
    "missing": "more missing values",
    "type": "values of another kind",
    "outside": "outside the training range",
    "new": "new values",
    "drift": "drift",
    "prediction": "prediction drift",
    "quality": "quality",
}


def render(result: Result, earlier: Sequence[Result]) -> str:
    """Return the page.

    Args:
        result: The content of result.json.
        earlier: Those of windows before it, oldest first.
    """
    title = f"Monitoring of {result['stage']}"
    bad = "worse" if result["violations"] else "better" if result["status"] == "ok" else "muted"
    state = STATES[result["status"]]
    if result["status"] == "no requests" and result["refused"]:
        state = "All requests were refused or cannot be read."
    span = f"{_time(result['window']['start'])} to {_time(result['window']['end'])} UTC"
    body = [
        f"<header><p>{_e(result['project'])} · {_e(span)}</p><h1>{_e(title)}</h1>",
        f"<p><b class={bad}>{state}</b> {_lead(result)}</p></header>",
        _tiles(result),
        _violations(result),
        _trend([*earlier, result]),
        _quality(result),
        _distributions("Predictions", result["predictions"], len(result["versions"]) > 1),
        _distributions("Columns, worst first", result["columns"], len(result["versions"]) > 1),
        _columns(result),
        "<p class=muted>Drift is the population stability index: near 0 for the same distribution, "
        "about 0.23 for a shift by half a standard deviation. A value violates its limit if it is "
        "above it and chance does not explain that.</p>",
    ]
    return document(f"{title} · {result['window']['end']}", body)


def _time(text: str) -> str:
    return text[:16].replace("T", " ")


def _lead(result: Result) -> str:
    judged = result["judged"]
    versions = [
        f"version {_e(name)} answered {rows:,} row{'s' * (rows != 1)}"
        f"{'' if name in judged else ', too few to judge'}"
        for name, rows in result["versions"].items()
        if name not in result["without_baseline"]
    ]
    without = [
        f"version {_e(name)} has no baseline, so its requests are only counted"
        for name in result["without_baseline"]
    ]
    text = "; ".join([*versions, *without])
    if result["refused"]:
        text += f". Requests refused or unreadable: {result['refused']:,}"
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _tiles(result: Result) -> str:
    cells = [
        ("Violations", f"{len(result['violations'])}", ""),
        ("Requests", f"{result['requests']:,}", f"{result['rows']:,} rows"),
        ("Largest drift", *_worst(result["columns"])),
        ("Prediction drift", *_worst(result["predictions"])),
    ]
    for each in result["quality"]:
        if each["value"] is not None:
            name = f"{each['metric']}, version {each['version']}"
            note = f"{number(each['baseline'])} in the baseline"
            cells.append((name, f"{each['value']:.4g}", note))
    return tiles((_e(name), _e(value), _e(note)) for name, value, note in cells)


def _worst(columns: Sequence[Result]) -> tuple[str, str]:
    """Return the largest stability index of these columns, and whose it is."""
    drifts = [
        (test["value"], each["name"], test["limit"])
        for each in columns
        for test in each["tests"]
        if test["kind"] in ("drift", "prediction")
    ]
    if not drifts:
        return "n/a", ""
    value, name, limit = max(drifts, key=lambda found: found[0])
    return f"{value:.3f}", short(name) if limit is None else f"{short(name, 22)}; limit {limit:g}"


def _violations(result: Result) -> str:
    if not result["violations"]:
        return ""
    rows = [
        [
            f"<b class=worse>{_e(each['column'] or 'all rows')}</b>",
            KINDS[each["kind"]],
            _value(each["kind"], each["value"]),
            _value(each["kind"], each["limit"]),
            _e(each["text"].partition(": ")[2].rpartition(" (limit")[0] + _examples(result, each)),
            _e(each["version"]),
        ]
        for each in result["violations"]
    ]
    header = ["Column", "What", "Value", "Limit", "In words", "Version"]
    return f"<h2>Violations</h2>{_table(header, rows)}"


def _examples(result: Result, violation: Result) -> str:
    """Return new values of a column, which only the report quotes."""
    found = [
        repr(example)
        for each in result["columns"]
        if (each["version"], each["name"]) == (violation["version"], violation["column"])
        for test in each["tests"]
        if test["kind"] == violation["kind"]
        for example in test.get("examples", ())
    ]
    return f", such as {', '.join(found)}" if found else ""


def _value(kind: str, value: float) -> str:
    return f"{value:.3f}" if kind in ("drift", "prediction") else f"{max(0.0, value):.1%}"


# Over windows


def _trend(results: Sequence[Result]) -> str:
    if len(results) < 2:
        return ""
    ends = [_time(each["window"]["end"])[5:] for each in results]
    step = -(-len(ends) // 10)
    at = range((len(ends) - 1) % step, len(ends), step)

    def over(title: str, note: str, draw: Callable[[Sequence[Result], Axes], None]) -> str:
        def drawn(axes: Axes) -> None:
            draw(results, axes)
            axes.set_xticks(at, [ends[place] for place in at])
            axes.set_xlim(-0.5, len(ends) - 0.5)

        return figure(title, note, drawn, TREND)

    found = over("Drift", "largest value in units of its limit", _ratios)
    found += over("Rows", "answered in the window", _bars)
    if any(each["quality"] for each in results):
        found += over("Quality", "of rows with a label; dashed: the baseline", _qualities)
    return f"<h2>Over {len(results)} windows</h2><section class=figures>{found}</section>"


def _ratios(results: Sequence[Result], axes: Axes) -> None:
    for part, color in (("columns", BLUE), ("predictions", LINES[3])):
        values = [max((each["worst"] for each in r[part]), default=np.nan) for r in results]
        axes.plot(values, color=color, marker="o", ms=4, lw=1.6, label=part)
    axes.axhline(1, color=ORANGE, lw=1.2, ls="--", label="limit")
    axes.set_ylim(bottom=0)
    axes.legend(loc="upper left", ncols=3)


def _bars(results: Sequence[Result], axes: Axes) -> None:
    versions = sorted({version for each in results for version in each["versions"]}, key=int)
    bottom = np.zeros(len(results))
    for color, version in zip(cycle(LINES), versions, strict=False):
        rows = np.array([each["versions"].get(version, 0) for each in results], float)
        axes.bar(range(len(rows)), rows, 0.6, bottom, color=color, label=f"version {version}")
        bottom += rows
    axes.grid(axis="x", visible=False)
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.set_ylim(top=max(1.0, bottom.max()) * 1.3)
    if versions:
        axes.legend(loc="upper left", ncols=6)


def _qualities(results: Sequence[Result], axes: Axes) -> None:
    lines: dict[tuple[str, str], list[float]] = {}
    limits: dict[tuple[str, str], float | None] = {}
    for place, result in enumerate(results):
        for each in result["quality"]:
            key = each["version"], each["metric"]
            line = lines.setdefault(key, [np.nan] * len(results))
            line[place] = np.nan if each["value"] is None else each["value"]
            limits[key] = each["baseline"]
    for color, ((version, metric), values) in zip(cycle(LINES), lines.items(), strict=False):
        label = f"{metric}, version {version}"
        axes.plot(values, color=color, marker="o", ms=4, lw=1.6, label=label)
        if (was := limits[version, metric]) is not None:
            axes.axhline(was, color=color, lw=1, ls="--")
    axes.margins(y=0.3)
    axes.legend(loc="lower left", ncols=3)


# In this window


def _quality(result: Result) -> str:
    unread = "".join(f"<p class=worse>{_e(text)}</p>" for text in result.get("unread", ()))
    if not result["quality"]:
        return unread
    rows = []
    for each in result["quality"]:
        state = "worse" if each.get("violates") else "muted"
        worse = f"{each['worse_by']:.1%}" if "worse_by" in each else "not judged"
        limit = "-" if each.get("limit") is None else f"{each['limit']:.1%}"
        rows.append([_e(each["version"]), _e(each["metric"]), f"{each['rows']:,}",
                     _e(each["text"]), f"<span class={state}>{worse}</span>", limit])  # fmt: skip
    header = ["Version", "Metric", "Labelled rows", "Found", "Worse by", "Limit"]
    return f"<h2>Quality</h2>{unread}{_table(header, rows)}"


def _distributions(title: str, columns: Sequence[Result], several: bool) -> str:
    drawn = []
    for each in [each for each in columns if each["shape"]][:DRAWN]:
        drifts = [t for t in each["tests"] if t["kind"] in ("drift", "prediction")]
        note = "; ".join(_noted(test) for test in drifts or each["tests"][:1])
        note += f"; version {each['version']}" if several else ""
        draw = partial(_before_after, each["shape"], each["kind"])
        drawn.append(figure(short(each["name"], 30), note, draw, SMALL))
    if not drawn:
        return ""
    key = (
        "<p><span class=up>■</span> in the baseline, <span class=down>■</span> in this window; "
        "share of the values.</p>"
    )
    return f"<h2>{title}</h2>{key}<section class='figures three'>{''.join(drawn)}</section>"


def _noted(test: Result) -> str:
    if test["kind"] not in ("drift", "prediction"):
        return str(test["text"])
    limit = "" if test["limit"] is None else f", limit {test['limit']:g}"
    return f"drift {test['value']:.3f}{limit}"


def _before_after(shape: Result, kind: str, axes: Axes) -> None:
    before, after = shape["before"], shape["after"]
    if "edges" in shape:
        axes.stairs(before, shape["edges"], fill=True, color=BLUE, alpha=0.3)
        axes.stairs(before, shape["edges"], color=BLUE, lw=1.2)
        axes.stairs(after, shape["edges"], color=ORANGE, lw=1.8)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(_date if kind == "date" else lambda value, _: number(value))
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        axes.set_ylim(bottom=0)
        return
    place = np.arange(len(before))
    axes.barh(place - 0.2, before, 0.38, color=BLUE, alpha=0.45)
    axes.barh(place + 0.2, after, 0.38, color=ORANGE)
    axes.set_yticks(place, [figures.plain(short(name, 16)) for name in shape["names"]])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))


def _date(seconds: float, _: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _columns(result: Result) -> str:
    shown = result["columns"][:LISTED]
    if not shown:
        return ""
    several = len(result["versions"]) > 1
    rows = []
    for each in shown:
        tests = {test["kind"]: test for test in each["tests"]}
        cells = [_cell(tests.get(kind)) for kind in ("missing", "type", "outside", "new", "drift")]
        version = [_e(each["version"])] if several else []
        rows.append([_e(each["name"]), _e(each["kind"]), *version, *cells])
    header = ["Column", "Kind", *["Version"] * several, "Missing", "Other kind", "Outside", "New",
              "Drift"]  # fmt: skip
    more = len(result["columns"]) - len(shown)
    rest = f"<p class=muted>{more} more columns are further below their limits.</p>" if more else ""
    text = (
        "More missing values than in training, values of another kind, numbers outside the "
        "training range, values that training never had; shares of the rows."
    )
    return f"<h2>All columns</h2><p>{text}</p>{_table(header, rows)}{rest}"


def _cell(test: Result | None) -> str:
    if test is None:
        return "<span class=muted>-</span>"
    value = _value(test["kind"], test["value"])
    return f"<b class=worse>{value}</b>" if test["violates"] else value
