"""Labels that arrive later: read them, find the predictions they belong to, measure the quality.

A label belongs to the row `row` (from 0) of the request with its `inference_id`. Must not know
where files come from.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq
from pandas.util import hash_array
from scipy import stats

from sm_mlops.tabular import metrics
from sm_mlops.tabular.baseline import Baseline
from sm_mlops.tabular.captured import Answers
from sm_mlops.tabular.drift import Test
from sm_mlops.tabular.encoding import Floats
from sm_mlops.tabular.failure import DataError
from sm_mlops.tabular.numerals import POINT, evidence, is_number, parse_number
from sm_mlops.tabular.schema import Schema
from sm_mlops.tabular.windows import Window

Keys = npt.NDArray[np.uint64]

MOST = 1_000_000  # labels of a window; of more, a sample
FEWEST = 50  # labelled rows that are judged
SAMPLES, SAMPLED = 50, 20_000  # of a bootstrap, and rows in each
LONGEST = 200  # characters of why a file cannot be read
ENDINGS = (".csv", ".jsonl", ".parquet")
# The hour that `mlops invoke` puts in front of an ID, and not any ten digits.
_OURS = r"^20[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])([01][0-9]|2[0-3])-"
_ROW = np.uint64(0x9E3779B97F4A7C15)


@dataclass
class Labels:
    """The labels of one window, found by a hash of inference id and row."""

    window: Window
    keys: Keys = field(default_factory=lambda: np.empty(0, np.uint64))
    texts: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    share: int = 1
    """One in so many labels is kept."""

    def add(self, keys: Keys, texts: pa.Array) -> None:
        """Take labels; a later one replaces an earlier one of the same row."""
        keys = np.concatenate([keys[::-1], self.keys])
        texts = pa.concat_arrays([texts.take(pa.array(np.arange(len(texts))[::-1])), self.texts])
        self.keys, first = np.unique(keys, return_index=True)
        self.texts = texts.take(pa.array(first))
        self._thin()
        while len(self.keys) > MOST:
            self.share *= 2
            self._thin()

    def _thin(self) -> None:
        """Keep a sample by hash: the same rows whatever the order of the files."""
        if self.share > 1:
            chosen = self.keys % np.uint64(self.share) == 0
            self.keys, self.texts = self.keys[chosen], self.texts.filter(pa.array(chosen))

    @property
    def digest(self) -> str:
        """Return what changes with the labels."""
        values = hash_array(self.texts.to_numpy(zero_copy_only=False), categorize=False)
        return f"{len(self.keys)} {np.bitwise_xor.reduce(values * _ROW + self.keys, initial=0)}"

    def of(self, answers: Answers) -> tuple[npt.NDArray[np.int64], pa.Array]:
        """Return which predictions have a label, and their labels."""
        if not len(self.keys):
            return np.empty(0, np.int64), self.texts.slice(0, 0)
        ids = np.array([each or "" for each in answers.ids], object)
        counts = np.array(answers.counts)
        starts = np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.arange(counts.sum()) - starts
        keys = np.repeat(hash_array(ids, categorize=False), counts) + rows.astype(np.uint64) * _ROW
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        found = np.flatnonzero((self.keys[places] == keys) & np.repeat(ids != "", counts))
        return found, self.texts.take(pa.array(places[found]))


def add(windows: list[Labels], name: str, content: IO[bytes]) -> None:
    """Give the labels of a file to the windows that they are in.

    The hour of a request is in ids of ours. Others are looked for in every window. Raise DataError
    if the file cannot be read; labels before the fault are taken.
    """
    for table in _tables(name, content):
        if table.num_rows == 0:
            continue
        ids = table["inference_id"].combine_chunks()
        ours = pc.match_substring_regex(ids, _OURS)
        hours = pc.if_else(ours, pc.utf8_slice_codeunits(ids, 0, 10), "0").cast(pa.int64())
        hour = hours.to_numpy(zero_copy_only=False)
        row = table["row"].to_numpy().astype(np.uint64)
        keys = hash_array(ids.to_numpy(zero_copy_only=False), categorize=False) + row * _ROW
        for labels in windows:
            start, end = (int(t.strftime("%Y%m%d%H")) for t in
                          (labels.window.start, labels.window.end))  # fmt: skip
            here = ((hour >= start) & (hour < end)) | (hour == 0)
            if here.any():
                texts = table["label"].combine_chunks()
                labels.add(keys[here], texts.filter(pa.array(here)))


def _tables(name: str, content: IO[bytes]) -> Iterator[pa.Table]:
    """Yield inference_id and label as text, and row as int64, without rows that lack one."""
    columns = ["inference_id", "label", "row"]
    text = dict.fromkeys(columns, pa.string())
    try:
        ending = name.lower()
        if ending.endswith(".parquet"):
            data = pa.BufferReader(content.read())
            reader: Any = (
                pa.Table.from_batches([batch]) for batch in pq.ParquetFile(data).iter_batches(MOST)
            )
        elif ending.endswith(".jsonl"):
            reader = [_lines(content.read())]
        else:
            convert = pacsv.ConvertOptions(
                column_types=text, null_values=[""], strings_can_be_null=True
            )
            reader = (pa.Table.from_batches([batch]) for batch in pacsv.open_csv(
                content, convert_options=convert))  # fmt: skip
        for table in reader:
            for column in ("inference_id", "label"):
                if column not in table.column_names:
                    raise ValueError(f"no column '{column}'; labels need inference_id and label, "
                                     "and row for requests of several rows")  # fmt: skip
            if "row" not in table.column_names:
                table = table.append_column("row", pa.nulls(table.num_rows, pa.string()))
            table = table.select(columns)
            label = _texts(table["label"])
            ids = table["inference_id"].cast(pa.string())
            yield pa.table([ids, label, _rows(table["row"])], columns).drop_null()
    except (pa.ArrowException, ValueError, KeyError, OSError) as error:
        why = " ".join(str(error).split())[:LONGEST]
        raise DataError(f"labels in {name} were not read: {why}") from error


def _lines(body: bytes) -> pa.Table:
    """Return JSON Lines, with texts as they are written where Arrow takes them for times."""
    table = pajson.read_json(io.BytesIO(body))
    times = [f.name for f in table.schema if pa.types.is_timestamp(f.type)]
    if not times:
        return table
    texts = pajson.ParseOptions(pa.schema([(name, pa.string()) for name in times]))
    return pajson.read_json(io.BytesIO(body), parse_options=texts)


def _rows(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return numbers of rows, 0 where there is none. Raise ValueError for one that is none."""
    numbers = values.cast(pa.float64())
    whole = pc.and_(pc.is_finite(numbers), pc.equal(numbers, pc.floor(numbers)))
    wrong = numbers.filter(pc.invert(pc.and_(whole, pc.greater_equal(numbers, 0))))
    if len(wrong):
        raise ValueError(f"a row is {wrong[0].as_py():g}; rows count from 0")
    return pc.fill_null(numbers.cast(pa.int64()), 0)


def _texts(values: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.utf8_trim_whitespace(values.cast(pa.string()))


@dataclass
class Labelled:
    """Predictions with their labels."""

    values: list[Floats] = field(default_factory=list)
    texts: list[pa.Array] = field(default_factory=list)

    def add(self, answers: Answers, labels: Labels) -> None:
        """Take the predictions that have a label."""
        found, texts = labels.of(answers)
        if len(found):
            self.values.append(answers.values[found])
            self.texts.append(texts)

    def quality(
        self, baseline: Baseline, metric: str, limit: float | None
    ) -> dict[str, Any] | None:
        """Return a metric of the labelled rows beside the baseline's; None without any such row.

        `test` is a drift.Test of how much worse it is, as a share of the baseline's value; None
        where it cannot be judged, and `text` says why. For a metric of the team's own, which is not
        measured here, stands the first of the library's.
        """
        if not self.values or baseline.quality is None or baseline.predictions is None:
            return None
        truth, values = self._truth(baseline)
        quantities = baseline.schema.task == "regression"
        fitting = metrics.OF_QUANTITIES if quantities else metrics.OF_CLASSES
        known = baseline.quality.metrics
        name = metric if metric in fitting else fitting[0]
        found = {"metric": name, "rows": len(truth), "baseline": known.get(name), "value": None}
        if len(truth) < FEWEST:
            text = f"{len(truth)} labelled rows are too few to judge; {FEWEST} are needed"
            return {**found, "text": text, "test": None}
        value = float(_measure(baseline, truth, values)[name])
        was = known.get(name)
        if not np.isfinite(value) or was is None:
            return {**found, "text": f"{name} is undefined on {len(truth)} rows", "test": None}
        loss = value - was if metrics.is_lower_better(name) else was - value
        spread = _deviation(baseline, name, truth, values)
        both = spread * np.sqrt(1 + len(truth) / max(baseline.predictions.rows, 1))
        chance = float(stats.norm.sf(loss / both)) if both > 0 else float(loss <= 0)
        share = max(0.0, float(loss / abs(was))) if was else float(loss > 0)
        text = f"{name} {value:.4f} on {len(truth):,} labelled rows, {was:.4f} in the baseline"
        test = Test("quality", share, limit, chance, text)
        return {**found, "value": value, "deviation": spread, "text": text, "test": test}

    def _truth(self, baseline: Baseline) -> tuple[Any, Floats]:
        """Return class indices or quantities, and predictions; without unknown labels."""
        values = np.concatenate(self.values)
        coded = pa.chunked_array(self.texts).combine_chunks().dictionary_encode()
        texts = coded.dictionary.to_pylist()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        schema = baseline.schema
        if schema.task == "regression":
            mark = evidence(coded.dictionary).decimal or POINT
            table = np.array(
                [parse_number(t, mark) if is_number(t, mark) else np.nan for t in texts]
            )
            truth = table[codes]
            kept = np.isfinite(truth) & np.isfinite(values)
        else:
            index = {name: i for i, name in enumerate(schema.class_names)}
            truth = np.array([index.get(_class_text(schema, t), -1) for t in texts])[codes]
            kept = truth >= 0
        return truth[kept], values[kept]


def _class_text(schema: Schema, text: str) -> str:
    """Return a label as in the schema; as it is where that cannot be."""
    try:
        return schema.class_text(text)
    except ValueError:
        return text


def _measure(baseline: Baseline, truth: Any, values: Floats) -> dict[str, float]:
    schema = baseline.schema
    return metrics.measured(schema.task, truth, values, schema.threshold)


def _deviation(baseline: Baseline, name: str, truth: Any, values: Floats) -> float:
    """Return the standard deviation of a metric on as many rows, by a bootstrap."""
    random = np.random.default_rng(0)
    size = min(len(truth), SAMPLED)
    found = []
    for _ in range(SAMPLES):
        chosen = random.integers(0, len(truth), size)
        found.append(_measure(baseline, truth[chosen], values[chosen])[name])
    known = np.array(found)[np.isfinite(found)]
    return float(np.std(known) * np.sqrt(size / len(truth))) if len(known) > 1 else 0.0
