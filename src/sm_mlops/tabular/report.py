"""The evaluation as one self-contained HTML page, for the people who decide about a version.

The same input gives the same bytes. Must not compute what the gate reads. The gate's limits are
parameters of an execution: `mlops report` adds the verdict after the header.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sm_mlops.tabular import figures, metrics
from sm_mlops.tabular.page import document, tiles
from sm_mlops.tabular.page import escaped as _e
from sm_mlops.tabular.page import table as _table
from sm_mlops.tabular.schema import Schema
from sm_mlops.tabular.text import metric_text, number

NAMES = {
    "auc": "ROC AUC",
    "logloss": "Log loss",
    "r2": "R²",
    "rmse": "RMSE",
    "mae": "MAE",
    "mape": "MAPE",
}
FEW = "<span class=muted>too few to tell</span>"
MOST_DRIVERS = 20
DIRECTIONS = {
    "up": "<span class=up>↑</span> rises with the value",
    "down": "<span class=down>↓</span> falls as the value rises",
    "mixed": "no single direction",
}


def render(
    schema: Schema,
    truth: Any,
    predicted: metrics.Floats,
    gate: dict[str, Any],
    training: dict[str, Any],
    champion: Any = None,
    sliced: dict[str, Any] | None = None,
    drivers: dict[str, Any] | None = None,
    reason: str = "",
) -> str:
    """Return the page.

    Args:
        truth: (rows,) class indices or quantities.
        predicted: (rows,) quantities or (rows, classes) probabilities.
        gate: The content of gate.json.
        training: The content of training.json, or nothing.
        champion: None, or an object with `version`, `predicted` (as above, or None) and `why`.
        sliced: None, or the `slices` of evaluation.json.
        drivers: Nothing, or what `contributions.overview` returns.
        reason: Why the model was trained, if that is known.
    """
    if schema.task == "regression":
        drawn = figures.of_quantities(truth, predicted, schema.target)
    else:
        drawn = figures.of_classes(truth, predicted, schema.class_names, schema.threshold)
    # Three figures are one row.
    three = " three" if sum(not each.startswith(figures.WIDE) for each in drawn) == 3 else ""
    title = f"Predicting {schema.target}"
    body = [
        f"<header><p>Model evaluation · {_e(schema.task)}</p><h1>{_e(title)}</h1>",
        f"<p>{_lead(schema, truth, predicted, gate, champion)}</p>",
        f"<p>Reason for this training: {_e(reason)}</p></header>" if reason else "</header>",
        _tiles(gate),
        f"<h2>On the test rows</h2><section class='figures{three}'>",
        *drawn,
        "</section>",
        _thresholds(schema, truth, predicted),
        _slices(sliced),
        _drivers(drivers, schema),
        *_data(schema, gate, training),
        "<h2>Training</h2><section class=figures>",
        *figures.of_training(training),
        "</section>",
        _facts(schema, gate, training),
    ]
    return document(title, body)


def _lead(
    schema: Schema, truth: Any, predicted: metrics.Floats, gate: dict[str, Any], champion: Any
) -> str:
    count = f"{len(truth):,} rows that it was not trained on"
    if schema.task == "regression":
        away = np.median(np.abs(predicted - truth))
        usual = np.median(np.abs(truth - np.median(truth)))
        text = (
            f"On {count}, half of the predictions are within <b>{number(float(away))}</b> of the "
            f"truth; always predicting the median would be within {number(float(usual))}."
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
    cells, ours = [], (*metrics.HIGHER, *metrics.LOWER)
    for name, entry in gate["metrics"].items():
        if entry["text"].endswith(f"does not fit a {gate['task']} task"):
            continue
        shown = "n/a" if abs(entry["value"]) >= 1e308 else metric_text(entry["value"])
        if entry["champion"] is None:
            note = f"{entry['better']} is better"
        else:
            state = "worse than" if entry["worse_by"] > 0 else "better than"
            state = "same as" if entry["value"] == entry["champion"] else state
            note = (
                f"<span class={state.split()[0]}>{state} version {_e(gate['champion'])}</span> "
                f"({metric_text(entry['champion'])})"
            )
        title = NAMES.get(name, name.replace("_", " ").capitalize() if name in ours else name)
        cells.append((_e(title), shown, note))
    return tiles(cells)


def _thresholds(schema: Schema, truth: Any, predicted: metrics.Floats) -> str:
    """Return what thresholds beside the chosen one would trade, for two classes."""
    if schema.task != "binary":
        return ""
    event, score = truth == 1, predicted[:, 1]
    at = np.unique([*np.linspace(0.1, 0.9, 9).round(1), schema.threshold])
    rows = []
    for threshold, *shares in zip(at, *metrics.trade(event, score, at), strict=True):
        cells = ["-" if np.isnan(share) else f"{share:.1%}" for share in shares]
        chosen = threshold == schema.threshold
        rows.append([f"<b>{threshold:g} (chosen)</b>" if chosen else f"{threshold:g}", *cells])
    text = (
        f"The endpoint predicts <b>{_e(schema.class_names[1])}</b> at a probability of "
        f"{schema.threshold:g} or more: <code>evaluation.threshold</code> of mlops.yaml. Accuracy, "
        "precision, recall, F1 and the confusion matrix are those of this threshold."
    )
    header = ["Threshold", "Precision", "Recall", "Predicted positive"]
    drawn = figures.of_thresholds(event, score, schema.threshold)
    return (
        f"<h2>Decision threshold</h2><p>{text}</p>"
        f"<section class=figures>{drawn}{_table(header, rows)}</section>"
    )


def _slices(sliced: dict[str, Any] | None) -> str:
    if sliced is None:
        return ""
    name, whole = sliced["metric"], sliced["value"]
    title = NAMES.get(name, name)
    value = "undefined" if whole is None else metric_text(whole)
    parts = [f"<h2>By slice</h2><p>{_e(title)} of all test rows: {value}.</p>"]
    for column in sliced["columns"]:
        rows = []
        for each in column["slices"]:
            value = "-" if each["metric"] is None else metric_text(each["metric"])
            apart = FEW
            if each["enough"]:
                apart = "-" if whole is None else _signed(each["metric"] - whole)
            rows.append([_e(each["value"]), f"{each['rows']:,}", f"{each['share']:.1%}"])
            rows[-1] += [value, apart]
        header = [_e(column["column"]), "Rows", "Share", _e(title), "Against all"]
        parts.append(_table(header, rows))
    return "".join(parts)


def _signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{metric_text(abs(value))}"


def _drivers(drivers: dict[str, Any] | None, schema: Schema) -> str:
    if not drivers:
        return ""
    title = "<h2>What moves the predictions</h2>"
    if "why" in drivers:
        return f"{title}<p>SHAP values could not be computed: {_e(drivers['why'])}.</p>"
    shown = drivers["columns"][:MOST_DRIVERS]
    largest = max((each["mean"] for each in shown), default=0) or 1
    whose = f" of {_e(schema.class_names[1])}" if schema.task == "binary" else ""
    unit = "the target's unit" if schema.task == "regression" else "log-odds"
    rows = [
        [
            _e(each["name"]),
            f"<span class=bar style='width:{each['mean'] / largest:.1%}'></span>",
            number(float(f"{each['mean']:.3g}")),
            _direction(each, schema.class_names),
        ]
        for each in shown
    ]
    more = len(drivers["columns"]) - len(shown)
    rest = f", without {more} columns that move less" if more else ""
    text = (
        f"Mean absolute SHAP value per column, in {unit}, on {drivers['rows']:,} test rows{rest}: "
        f"how far a column moves the prediction{whose} of a row away from the average one. "
        "It describes the model, not causes."
    )
    table = _table(["Column", "", "Mean", "Direction"], rows)
    return f"{title}<p>{text}</p>{table.replace('<table', '<table class=drivers', 1)}"


def _direction(each: dict[str, Any], classes: Sequence[str]) -> str:
    if "most" in each:
        return f"mostly class {_e(classes[each['most']])}"
    if "low" in each:
        return f"highest for <b>{_e(each['high'])}</b>, lowest for <b>{_e(each['low'])}</b>"
    return DIRECTIONS.get(each.get("direction", ""), "")


def _data(schema: Schema, gate: dict[str, Any], training: dict[str, Any]) -> list[str]:
    rows = gate["rows"]
    without = rows["without_label"]
    left_out = f"; {without:,} rows without a label were left out" if without else ""
    return [
        "<h2>The data</h2>",
        f"<p>{rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} "
        f"test rows{left_out}. Only this page uses the test rows; the table describes the training "
        "rows.</p>",
        _classes(schema),
        _checks(schema.data.get("checks", ())),
        _columns(schema, training.get("columns", ())),
    ]


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


def _checks(checks: Iterable[dict[str, Any]]) -> str:
    """Return what the checks of the data found, the worst first."""
    rows = [
        [
            _e(each["column"] or "all"),
            _e(each["check"]),
            f"<span class={'worse' if each['stops'] else 'muted'}>{_e(each['text'])}</span>",
        ]
        for each in sorted(checks, key=lambda each: not each["stops"])
    ]
    return f"<h3>Checks</h3>{_table(['Column', 'Check', 'Result'], rows)}" if rows else ""


def _columns(schema: Schema, summary: Iterable[dict[str, Any]]) -> str:
    rows, zoned = [], {column.name for column in schema.columns if column.zoned}
    for item in summary:
        values = ""
        if "top" in item:
            values = ", ".join(f"{_e(value)} ({count:,})" for value, count in item["top"])
            more = item["distinct"] - len(item["top"])
            values += f", {more:,} more" if more else ""
        elif "mean" in item:
            found = [item[name] for name in ("low", "high", "mean")]
            low, high, mean = (number(value, max(map(abs, found))) for value in found)
            values = f"{low} … {high}, mean {mean}"
        elif "low" in item:
            zone = " UTC" if item["name"] in zoned and ":" in item["high"] else ""
            values = f"{_e(item['low'])} … {_e(item['high'])}{zone}"
        note = f"<span class=worse>not used: {_e(item['note'])}</span> " if "note" in item else ""
        missing = f"{item['missing']:.1%}" if item["missing"] else "-"
        distinct = f"{item['distinct']:,}" if "distinct" in item else "-"
        rows.append([_e(item["name"]), _e(item["kind"]), missing, distinct, note + values])
    return _table(["Column", "Kind", "Missing", "Distinct", "Values"], rows) if rows else ""


def _facts(schema: Schema, gate: dict[str, Any], training: dict[str, Any]) -> str:
    parameters = training.get("parameters", {})
    shown = ", ".join(f"{name} {value}" for name, value in sorted(parameters.items()))
    facts = {
        "Trees": f"{training['best_round']:,} rounds kept of {training['rounds']:,} trained"
        if "rounds" in training
        else "",
        "Hyperparameters": shown,
        "Features": f"{training['features']:,} from {len(schema.inputs):,} columns"
        if "features" in training
        else "",
        "Columns left out": ", ".join(schema.dropped),
        "Versions": gate.get("versions", ""),
        "Data (SHA-256)": schema.data["sha256"],
    }
    rows = "".join(f"<dt>{name}<dd>{_e(value)}" for name, value in facts.items() if value)
    return f"<dl>{rows}</dl>"
