"""The evaluation as one self-contained HTML page, for the people who decide about a version.

The same input gives the same bytes. Must not compute what the gate reads.
"""

import html
import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import matplotlib
import numpy as np

from sm_mlops.tabular import metrics
from sm_mlops.tabular.schema import Schema
from sm_mlops.tabular.text import visible

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

INK, BLUE, ORANGE, GREY, PALE = "#1f2937", "#2563eb", "#ea580c", "#94a3b8", "#e2e8f0"
LINES = [BLUE, ORANGE, "#059669", "#7c3aed", "#db2777", "#0891b2", "#ca8a04", "#475569"]
SHOWN = 2000  # rows in a scatter plot
MOST_CLASSES = 8  # with a curve of their own
LINE_POINTS = 400
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": PALE,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "report",
    "axes.unicode_minus": False,
}
NAMES = {
    "auc": "ROC AUC",
    "logloss": "Log loss",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "mape": "MAPE",
}
KNOWN = {
    **dict.fromkeys(metrics.HIGHER, "higher is better"),
    **dict.fromkeys(metrics.LOWER, "lower is better"),
}
Curve = Callable[[metrics.Bools, metrics.Floats], tuple[metrics.Floats, metrics.Floats]]
Summary = Callable[[metrics.Bools, metrics.Floats], float]


def render(
    schema: Schema,
    truth: Any,
    predicted: metrics.Floats,
    gate: dict[str, Any],
    training: dict[str, Any],
    champion: Any = None,
) -> str:
    """Return the page.

    Args:
        truth: (rows,) class indices or quantities.
        predicted: (rows,) quantities or (rows, classes) probabilities.
        gate: The content of gate.json.
        training: The content of training.json, or nothing.
        champion: None, or an object with `version`, `predicted` (as above, or None) and `why`.
    """
    labels = [_short(name, 18) for name in schema.class_names]
    with plt.rc_context(STYLE):
        if schema.task == "regression":
            figures = _regression_figures(truth, predicted, schema.target)
        else:
            figures = _class_figures(truth, predicted, labels)
        figures += _training_figures(training)
    rows = gate["rows"]
    without = rows.get("without_label", 0)
    left_out = f"; {without:,} rows without a label were left out" if without else ""
    title = f"Predicting {schema.target}"
    body = [
        f"<header><p>Model evaluation · {_e(schema.task)}</p><h1>{_e(title)}</h1>",
        f"<p>{_lead(schema, truth, predicted, gate, champion)}</p></header>",
        f"<section class=tiles>{_tiles(gate)}</section>",
        "<h2>On the test rows</h2><section class=figures>",
        *figures,
        "</section>",
        "<h2>The data</h2>",
        f"<p>{rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} "
        f"test rows{left_out}. Only this page uses the test rows; the table describes the training "
        "rows.</p>",
        _classes(schema),
        _columns(schema),
        "<h2>Training</h2>",
        _facts(schema, gate, training),
    ]
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{_e(title)}</title>"
        '<meta name=viewport content="width=device-width">'
        f"<style>{CSS}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _e(text: object) -> str:
    return html.escape(visible(text))


def _short(text: str, length: int = 32) -> str:
    text = visible(text).replace("$", r"\$")
    return text if len(text) <= length else text[: length - 1] + "…"


def _number(value: float) -> str:
    if value == 0 or 0.001 <= abs(value) < 1e6:
        return f"{value:,.4f}".rstrip("0").rstrip(".") if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:.3g}"


def _lead(
    schema: Schema, truth: Any, predicted: metrics.Floats, gate: dict[str, Any], champion: Any
) -> str:
    count = f"{len(truth):,} rows that it was not trained on"
    if schema.task == "regression":
        away = np.median(np.abs(predicted - truth))
        usual = np.median(np.abs(truth - np.median(truth)))
        text = (
            f"On {count}, half of the predictions are within <b>{_number(float(away))}</b> of the "
            f"truth; always predicting the median would be within {_number(float(usual))}."
        )
    else:
        right = gate["metrics"]["accuracy"]["value"]
        usual = np.bincount(truth, minlength=2).max() / len(truth)
        text = (
            f"On {count}, <b>{right:.1%}</b> of the predicted classes are right; always predicting "
            f"the most common class would be right for {usual:.1%}."
        )
    if champion is None:
        return text + " There is no approved version to compare with yet."
    if champion.predicted is None:
        text += f" <b>The comparison with version {_e(champion.version)} was waived</b>, which "
        return f"{text}cannot be scored: {_e(champion.why)}."
    return text


def _tiles(gate: dict[str, Any]) -> str:
    tiles = []
    for name, entry in gate["metrics"].items():
        if name in KNOWN and name not in metrics.FITTING[gate["task"]]:
            continue  # others are the team's own
        shown = "n/a" if abs(entry["value"]) >= 1e308 else _number(entry["value"])
        if entry["champion"] is None:
            note = KNOWN.get(name, "")
        else:
            state = "worse than" if entry["worse_by"] > 0 else "better than"
            state = "same as" if entry["value"] == entry["champion"] else state
            note = (
                f"<span class={state.split()[0]}>{state} version {_e(gate['champion'])}</span> "
                f"({_number(entry['champion'])})"
            )
        title = NAMES.get(name, name.replace("_", " ").capitalize() if name in KNOWN else name)
        tiles.append(
            f"<div><small>{_e(title)}</small><strong>{shown}</strong><em>{note}</em></div>"
        )
    return "".join(tiles)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{name}" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>{body}</table>"


def _classes(schema: Schema) -> str:
    counts = schema.data["classes"]
    if not counts or len(schema.classes) > 40:
        return ""
    total = sum(counts["train"]) or 1
    parts = (counts[part] for part in ("train", "validation", "test"))
    rows = [
        [_e(name), f"{train:,}", f"{validation:,}", f"{test:,}", f"{train / total:.1%}"]
        for name, train, validation, test in zip(schema.class_names, *parts, strict=True)
    ]
    return _table(["Class", "Training", "Validation", "Test", "Share"], rows)


def _columns(schema: Schema) -> str:
    rows = []
    for item in schema.data["summary"]:
        values = ""
        if "top" in item:
            values = ", ".join(f"{_e(value)} ({count:,})" for value, count in item["top"])
        elif "mean" in item:
            low, high, mean = (_number(item[name]) for name in ("low", "high", "mean"))
            values = f"{low} … {high}, mean {mean}"
        elif "low" in item:
            values = f"{_e(item['low'])} … {_e(item['high'])}"
        note = f"<span class=worse>not used: {_e(item['note'])}</span> " if "note" in item else ""
        missing = f"{item['missing']:.1%}" if item["missing"] else "-"
        distinct = f"{item['distinct']:,}" if "distinct" in item else "-"
        rows.append([_e(item["name"]), _e(item["kind"]), missing, distinct, note + values])
    return _table(["Column", "Kind", "Missing", "Distinct", "Values"], rows)


def _facts(schema: Schema, gate: dict[str, Any], training: dict[str, Any]) -> str:
    parameters = training.get("parameters", {})
    shown = ", ".join(f"{name} {value}" for name, value in sorted(parameters.items()))
    facts = {
        "Trees": f"{training['best_round']:,} rounds kept of {training['rounds']:,} trained"
        if training
        else "",
        "Hyperparameters": shown,
        "Features": f"{len(schema.features):,} from {len(schema.columns):,} columns",
        "Columns left out": ", ".join(schema.dropped),
        "Versions": gate.get("versions", ""),
        "Data (SHA-256)": schema.data["sha256"],
    }
    rows = "".join(f"<dt>{name}<dd>{_e(value)}" for name, value in facts.items() if value)
    return f"<dl>{rows}</dl>"


def _figure(title: str, note: str, draw: Callable[[Axes], None]) -> str:
    figure, axes = plt.subplots(figsize=(4.6, 3.7))
    draw(axes)
    figure.tight_layout()
    sink = io.StringIO()
    figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    svg = "<svg" + sink.getvalue().partition("<svg")[2]
    return f"<figure><figcaption><b>{title}</b> {note}</figcaption>{svg}</figure>"


def _class_figures(truth: Any, predicted: metrics.Floats, labels: list[str]) -> list[str]:
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
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
        axes.set(xlabel="False positive rate", ylabel="True positive rate")
        axes.legend(loc="lower right")

    def recall(axes: Axes) -> None:
        curves(axes, metrics.precision_recall_curve, metrics.average_precision, "average")
        if binary:
            axes.axhline(float((truth == 1).mean()), color=GREY, lw=1, ls="--")
        axes.set(xlabel="Recall", ylabel="Precision")
        axes.legend(loc="lower left")

    about = f"of class {_e(labels[1])}" if binary else "one class against the others"
    if len(present) > MOST_CLASSES and not binary:
        about += f", the {MOST_CLASSES} most common"
    whose = f"of class {_e(labels[1])}" if binary else "of the predicted class"
    bars = f"probability {whose}, with 95 % intervals"
    predicted_class = predicted.argmax(axis=1)
    matrix = metrics.confusion(truth, predicted_class, len(labels))
    chosen = predicted[:, 1] if binary else predicted.max(axis=1)
    event = (truth == 1) if binary else (predicted_class == truth)
    return [
        _figure("ROC curve", about, roc),
        _figure("Precision and recall", about, recall),
        _figure("Confusion matrix", "rows by actual class", partial(_confusion, matrix, labels)),
        _figure("Calibration", bars, partial(_calibration, chosen, event)),
    ]


def _confusion(matrix: metrics.Ints, labels: list[str], axes: Axes) -> None:
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    size = len(labels)
    for (i, j), count in np.ndenumerate(matrix if size <= 12 else matrix[:0]):
        color = "white" if share[i, j] > 0.55 else INK
        text = f"{count:,}\n{share[i, j]:.1%}" if size <= 3 else f"{count:,}"
        axes.text(j, i, text, ha="center", va="center", color=color)
    step = max(1, size // 30)
    axes.set_xticks(range(0, size, step), labels[::step], rotation=35 if size > 3 else 0,
                    ha="right" if size > 3 else "center")  # fmt: skip
    axes.set_yticks(range(0, size, step), labels[::step])
    axes.set(xlabel="Predicted", ylabel="Actual")


def _calibration(chosen: metrics.Floats, event: metrics.Bools, axes: Axes) -> None:
    """Draw how often each event happens beside the probability predicted for it."""
    groups = _tenths(chosen)
    x = np.array([chosen[group].mean() for group in groups])
    y = np.array([event[group].mean() for group in groups])
    size = np.array([len(group) for group in groups])
    error = 1.96 * np.sqrt(np.maximum(y * (1 - y), 0.25 / size) / size)
    low, high = np.minimum(error, y), np.minimum(error, 1 - y)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    axes.errorbar(x, y, yerr=[low, high], color=BLUE, marker="o", ms=5, lw=1.6, elinewidth=1,
                  ecolor="#93c5fd")  # fmt: skip
    axes.set(xlabel="Predicted probability", ylabel="Observed share", xlim=(0, 1), ylim=(0, 1.02))


def _regression_figures(truth: Any, predicted: metrics.Floats, target: str) -> list[str]:
    shown = min(SHOWN, len(truth))
    at = np.sort(np.random.default_rng(0).choice(len(truth), shown, replace=False))
    x, y = truth[at], predicted[at]
    dense = 0.7 if len(at) < 300 else 0.35
    name = _short(target)

    def against(axes: Axes) -> None:
        low, high = min(x.min(), y.min()), max(x.max(), y.max())
        axes.plot([low, high], [low, high], color=GREY, lw=1.2, ls="--", zorder=3)
        axes.scatter(x, y, s=13, color=BLUE, alpha=dense, lw=0)
        axes.set(xlabel=f"Actual {name}", ylabel=f"Predicted {name}")

    def residuals(axes: Axes) -> None:
        axes.axhline(0, color=GREY, lw=1.2, ls="--", zorder=3)
        axes.scatter(y, y - x, s=13, color=ORANGE, alpha=dense, lw=0)
        axes.set(xlabel=f"Predicted {name}", ylabel="Predicted minus actual")

    def calibration(axes: Axes) -> None:
        groups = _tenths(predicted)
        px = [float(predicted[group].mean()) for group in groups]
        py = [float(truth[group].mean()) for group in groups]
        ends = [min(px + py), max(px + py)]
        axes.plot(ends, ends, color=GREY, lw=1, ls="--")
        axes.plot(px, py, color=BLUE, marker="o", ms=5, lw=1.6)
        axes.set(xlabel="Mean prediction", ylabel="Mean actual")

    note = f"{SHOWN:,} random rows" if len(truth) > SHOWN else "every test row"
    return [
        _figure("Predicted versus actual", note, against),
        _figure("Residuals", note, residuals),
        _figure("Calibration", "ten equal groups by prediction", calibration),
    ]


def _training_figures(training: dict[str, Any]) -> list[str]:
    figures = []
    importance = list(training.get("importance", {}).items())[:20]
    if importance:

        def bars(axes: Axes) -> None:
            names = [_short(name) for name, _ in importance]
            axes.barh(range(len(names)), [share for _, share in importance], color=BLUE, height=0.7)
            axes.set_yticks(range(len(names)), names, fontsize=8 if len(names) < 14 else 6.5)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.xaxis.set_major_formatter(matplotlib.ticker.PercentFormatter(1, decimals=0))
            axes.set_xlabel("Share of the total gain")

        figures.append(_figure("Most important features", "by gain, at most 20", bars))
    if training.get("curve"):

        def curve(axes: Axes) -> None:
            for part, color in (("train", GREY), ("validation", BLUE)):
                values = training["curve"][part]
                at = metrics.thinned(len(values), LINE_POINTS)
                axes.plot(at + 1, np.array(values)[at], color=color, lw=1.8, label=part)
            best = training["best_round"]
            axes.axvline(best, color=ORANGE, lw=1.2, ls="--", label=f"kept: {best} rounds")
            axes.set(xlabel="Boosting rounds", ylabel=_short(training["metric"]))
            axes.legend()

        figures.append(_figure("Training", "stopped early on the validation rows", curve))
    return figures


def _tenths(values: metrics.Floats) -> list[Any]:
    """Return row indices in up to ten groups of equal size, by rising value."""
    order = np.argsort(values, kind="stable")
    groups = np.array_split(order, max(2, min(10, len(order) // 15)))
    return [group for group in groups if len(group)]


CSS = """
*{box-sizing:border-box}
body{margin:0;background:#f1f5f9;color:#1f2937;font:15px/1.5 system-ui,sans-serif}
main{max-width:1060px;margin:0 auto;padding:0 20px 60px}
header{background:#2563eb;color:#fff;margin:24px 0 0;padding:30px 34px;border-radius:12px}
h1{margin:2px 0 8px;font-size:30px;line-height:1.2;overflow-wrap:anywhere}
h2{margin:36px 0 12px;font-size:19px}
header p{margin:0;font-size:17px;max-width:48em}
section{display:grid;gap:16px;margin:16px 0 0}
.tiles{grid-template-columns:repeat(auto-fit,minmax(170px,1fr))}
.figures{grid-template-columns:repeat(auto-fit,minmax(430px,1fr))}
.tiles div,figure,table,dl{background:#fff;border-radius:12px;box-shadow:0 1px 3px #0f172a20}
.tiles div{padding:14px 18px}
.tiles small,.tiles em,figcaption,dt{color:#64748b;font-size:13px;font-style:normal}
.tiles strong{display:block;font-size:30px;line-height:1.25}
.better{color:#047857}.worse{color:#b91c1c}
.gate{background:#fff;border-radius:12px;padding:16px 22px;gap:6px}.gate h2,.gate ul{margin:0}
figure{margin:0;padding:16px 16px 8px}figcaption b{color:#1f2937;font-size:15px}
svg{width:100%;height:auto;display:block}
table{border-spacing:0;width:100%;font-size:13px;margin:0 0 16px}
th{text-align:left;color:#64748b}
th,td{padding:7px 14px;border-bottom:1px solid #eef2f7;overflow-wrap:anywhere}
dl{display:grid;grid-template-columns:max-content 1fr;gap:8px 24px;padding:18px 22px;font-size:13px}
dd{margin:0;overflow-wrap:anywhere}
"""
