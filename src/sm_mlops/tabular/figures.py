"""The figures of the report: SVG in the colors of the page, light or dark.

The same input gives the same bytes. Must not know about the page around them.
"""

import html
import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib
import numpy as np

from sm_mlops.tabular import metrics
from sm_mlops.tabular.text import number, visible

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import MaxNLocator, PercentFormatter

COLORS = {
    "ink": "#1f2937",
    "muted": "#64748b",
    "line": "#e2e8f0",
    "blue": "#2563eb",
    "orange": "#ea580c",
    "green": "#059669",
    "violet": "#7c3aed",
    "pink": "#db2777",
    "cyan": "#0891b2",
    "yellow": "#ca8a04",
    "slate": "#475569",
}
"""By the name of the page's variable, which replaces the color in the SVG."""
INK, MUTED, PALE, *LINES = COLORS.values()
BLUE, ORANGE = LINES[:2]
WIDE = "<figure class=wide"
USUAL, SMALL = (4.6, 3.7), (3.7, 3.2)
SHOWN = 2000  # rows in a scatter plot
MOST_CLASSES = 8  # with a curve of their own
MOST_CELLS = 60**2  # that are drawn one by one
LINE_POINTS = 400
DARK = 0.85  # the share from which a cell of the confusion matrix takes white text
STYLE = {
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "report",
    "svg.fonttype": "none",  # text stays text, in a font that has its characters
    "axes.unicode_minus": False,
}
Curve = Callable[[metrics.Bools, metrics.Floats], tuple[metrics.Floats, metrics.Floats]]
Summary = Callable[[metrics.Bools, metrics.Floats], float]
Draw = Callable[[Axes], None]


def short(text: str, length: int = 24) -> str:
    """Return text as a label: at most `length` characters."""
    text = visible(text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


def plain(text: str) -> str:
    """Return text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


def figure(title: str, note: str, draw: Draw, size: tuple[float, float] = USUAL) -> str:
    """Return a figure element; its size in inches decides about the size of text in it."""
    with plt.rc_context(STYLE):
        drawing, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        sink = io.StringIO()
        drawing.savefig(
            sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
        plt.close(drawing)
    svg = "<svg" + sink.getvalue().partition("<svg")[2]
    for name, color in COLORS.items():
        svg = svg.replace(color, f"var(--{name})")
    svg = re.sub(r"font: [^;\"]*?(\d[\d.]*px)[^;\"]*", r"font-size: \1", svg)
    start = WIDE if size[0] > 6 else "<figure"
    caption = f"<figcaption><b>{html.escape(title)}</b> {html.escape(note)}</figcaption>"
    return f"{start}>{caption}{svg}</figure>"


def of_classes(
    truth: Any, predicted: metrics.Floats, names: list[str], threshold: float
) -> list[str]:
    """Return the figures of a classification; `predicted` is (rows, classes)."""
    labels = [plain(short(name, 18)) for name in names]
    binary = len(labels) == 2
    counts = np.bincount(truth, minlength=len(labels))
    present = [int(k) for k in np.argsort(-counts, kind="stable") if counts[k]]
    shown = [1] if binary else sorted(present[:MOST_CLASSES])

    def curves(axes: Axes, curve: Curve, summary: Summary, word: str) -> None:
        for n, k in enumerate(shown):
            x, y = curve(truth == k, predicted[:, k])
            value = summary(truth == k, predicted[:, k])
            label = f"{word} {value:.3f}" if binary else f"{labels[k]}  {value:.3f}"
            at = metrics.thinned(len(x), LINE_POINTS)
            axes.plot(x[at], y[at], color=LINES[n % len(LINES)], lw=1.8, label=label)
        axes.set(xlim=(0, 1), ylim=(0, 1.01))

    def roc(axes: Axes) -> None:
        curves(axes, metrics.roc_curve, metrics.roc_auc, "area")
        axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
        axes.legend(loc="lower right")

    def recall(axes: Axes) -> None:
        curves(axes, metrics.precision_recall_curve, metrics.average_precision, "average")
        if binary:
            axes.axhline(float((truth == 1).mean()), color=MUTED, lw=1, ls="--")
        axes.set(xlabel="Recall", ylabel="Precision")
        axes.legend(loc="lower left")

    about = f"of class {short(names[1])}" if binary else "one class against the others"
    if len(present) > MOST_CLASSES and not binary:
        about += f", the {MOST_CLASSES} most common"
    whose = f"of class {short(names[1])}" if binary else "of the predicted class"
    bars = f"probability {whose}, with 95% intervals"
    chosen_class = metrics.decided(predicted, threshold)
    matrix = metrics.confusion(truth, chosen_class, len(labels))
    chosen = predicted[:, 1] if binary else predicted.max(axis=1)
    event = (truth == 1) if binary else (chosen_class == truth)
    # Names of many classes need room.
    size, others = (USUAL, USUAL) if len(labels) <= MOST_CLASSES else ((9.6, 8.0), SMALL)
    note = "rows by actual class"
    note += f", threshold {threshold:g}" if binary else ""
    found = [
        figure("ROC curve", about, roc, others),
        figure("Precision and recall", about, recall, others),
        figure("Confusion matrix", note, partial(_confusion, matrix, labels), size),
        figure("Calibration", bars, partial(_calibration, chosen, event), others),
    ]
    return sorted(found, key=lambda each: each.startswith(WIDE))


def _confusion(matrix: metrics.Ints, labels: list[str], axes: Axes) -> None:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = len(labels)
    # The page shows through where the share is small, so that it fits light and dark.
    colors = np.empty((size, size, 4))
    colors[:] = to_rgba(BLUE)
    colors[..., 3] = np.where(share > 0, 0.06 + 0.94 * share, 0)
    if size**2 <= MOST_CELLS:
        for i, j in zip(*np.nonzero(matrix), strict=True):
            box = (j - 0.5, i - 0.5)
            axes.add_patch(plt.Rectangle(box, 1, 1, color=BLUE, alpha=colors[i, j, 3], lw=0))
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    else:
        axes.imshow(colors, interpolation="nearest")
    axes.grid(visible=False)
    for (i, j), count in np.ndenumerate(matrix if size <= 12 else matrix[:0]):
        color = "white" if share[i, j] > DARK else INK
        text = f"{count:,}\n{share[i, j]:.1%}" if size <= 3 else f"{count:,}" if count else ""
        axes.text(j, i, text, ha="center", va="center", color=color)
    step, font = -(-size // 50), 9 if size <= 12 else 7
    at, names = range(0, size, step), labels[::step]
    slanted = sum(map(len, names)) > 24 or size > 6
    how: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(at, names, fontsize=font, **(how if slanted else {}))
    axes.set_yticks(at, names, fontsize=font)
    axes.set(xlabel="Predicted", ylabel="Actual")


def _calibration(chosen: metrics.Floats, event: metrics.Bools, axes: Axes) -> None:
    """Draw how often each event happens beside the probability predicted for it."""
    groups = _tenths(chosen)
    x = np.array([chosen[group].mean() for group in groups])
    y = np.array([event[group].mean() for group in groups])
    size = np.array([len(group) for group in groups])
    error = 1.96 * np.sqrt(np.maximum(y * (1 - y), 0.25 / size) / size)
    low, high = np.minimum(error, y), np.minimum(error, 1 - y)
    axes.plot([0, 1], [0, 1], color=MUTED, lw=1, ls="--")
    axes.errorbar(x, y, yerr=[low, high], color=BLUE, marker="o", ms=5, lw=1.6, elinewidth=1)
    axes.set(xlabel="Predicted probability", ylabel="Observed share", xlim=(0, 1), ylim=(0, 1.02))


def of_thresholds(truth: metrics.Bools, score: metrics.Floats, threshold: float) -> str:
    """Return a figure of what each threshold would give, and where the chosen one is."""

    def draw(axes: Axes) -> None:
        at = np.linspace(0, 1, 201)
        names = ("precision", "recall", "predicted positive")
        for name, values, color in zip(names, metrics.trade(truth, score, at), LINES, strict=False):
            axes.plot(at, values, color=color, lw=1.8, label=name)
        axes.axvline(threshold, color=MUTED, lw=1.2, ls="--", label=f"threshold {threshold:g}")
        axes.set(xlabel="Threshold", ylabel="Share", xlim=(0, 1), ylim=(0, 1.01))
        axes.legend()

    return figure("Other thresholds", "what each would trade", draw)


def of_quantities(truth: Any, predicted: metrics.Floats, target: str) -> list[str]:
    """Return the figures of a regression."""
    shown = min(SHOWN, len(truth))
    at = np.sort(np.random.default_rng(0).choice(len(truth), shown, replace=False))
    x, y = truth[at], predicted[at]
    dense = 0.7 if len(at) < 300 else 0.35
    name = plain(short(target))

    def named(axes: Axes, xlabel: str, ylabel: str) -> None:
        axes.set(xlabel=xlabel, ylabel=ylabel)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
            largest = max(map(abs, axis.get_view_interval()))
            axis.set_major_formatter(partial(_tick, largest))

    def against(axes: Axes) -> None:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=MUTED, lw=1.2, ls="--", zorder=3)
        axes.scatter(x, y, s=13, color=BLUE, alpha=dense, lw=0)
        named(axes, f"Actual {name}", f"Predicted {name}")

    def residuals(axes: Axes) -> None:
        axes.axhline(0, color=MUTED, lw=1.2, ls="--", zorder=3)
        axes.scatter(y, y - x, s=13, color=ORANGE, alpha=dense, lw=0)
        named(axes, f"Predicted {name}", "Predicted minus actual")

    def calibration(axes: Axes) -> None:
        px = [float(predicted[group].mean()) for group in groups]
        py = [float(truth[group].mean()) for group in groups]
        ends = [min(px + py), max(px + py)]
        axes.plot(ends, ends, color=MUTED, lw=1, ls="--")
        axes.plot(px, py, color=BLUE, marker="o", ms=5, lw=1.6)
        named(axes, "Mean prediction", "Mean actual")

    groups = _tenths(predicted)
    note = f"{SHOWN:,} random rows" if len(truth) > SHOWN else "every test row"
    return [
        figure("Predicted versus actual", note, against, SMALL),
        figure("Residuals", note, residuals, SMALL),
        figure("Calibration", f"{len(groups)} equal groups by prediction", calibration, SMALL),
    ]


def _tick(largest: float, value: float, position: int) -> str:
    return number(value, largest)


def of_training(training: dict[str, Any]) -> list[str]:
    """Return the figures of training.json, which may have none."""
    found = []
    importance = list(training.get("importance", {}).items())[:20]
    if importance:

        def bars(axes: Axes) -> None:
            names = [plain(short(name)) for name, _ in importance]
            axes.barh(range(len(names)), [share for _, share in importance], color=BLUE, height=0.7)
            axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) < 14 else 6.5)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            axes.set_xlabel("Share of the total gain")

        found.append(figure("Most important features", "by gain, at most 20", bars))
    if training.get("curve"):

        def curve(axes: Axes) -> None:
            for part, color in (("train", MUTED), ("validation", BLUE)):
                values = training["curve"][part]
                at = metrics.thinned(len(values), LINE_POINTS)
                axes.plot(at + 1, np.array(values)[at], color=color, lw=1.8, label=part)
            best = training["best_round"]
            axes.axvline(best, color=ORANGE, lw=1.2, ls="--", label=f"kept: {best} rounds")
            axes.set(xlabel="Boosting rounds", ylabel=plain(short(training["metric"])))
            axes.legend()

        found.append(figure("Training", "stopped early on the validation rows", curve))
    return found


def _tenths(values: metrics.Floats) -> list[Any]:
    """Return row indices in up to ten groups of equal size, by rising value."""
    order = np.argsort(values, kind="stable")
    groups = np.array_split(order, max(2, min(10, len(order) // 15)))
    return [group for group in groups if len(group)]
