"""Time and memory of the monitoring job at growing numbers of captured requests.

    python bench/monitor.py                    # 100 thousand and 1 million requests
    MONITOR_MILLIONS=10 python bench/monitor.py

Each request is one row of 20 columns, half of them sent as CSV and half as JSON; one in a hundred
has a label. Exits with code 1 if time grows faster than requests, or memory with them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

from sm_mlops.tabular import baseline, rows
from sm_mlops.tabular.baseline import Baseline, Predicted, Quality, Summarizer
from sm_mlops.tabular.schema import Column, Schema

NUMBERS = [f"number_{i}" for i in range(15)]
TEXTS = [f"text_{i}" for i in range(5)]
COLUMNS = [*(Column(name, "number") for name in NUMBERS), *(Column(n, "text") for n in TEXTS)]
SCHEMA = Schema("binary", "y", ["no", "yes"], COLUMNS, [], {})
DISTINCT = 20_000  # requests; others repeat them
PER_FILE = 5000
UNTIL = datetime(2026, 11, 28, 6, tzinfo=UTC)
GROUP = "arn:aws:sagemaker:eu-west-1:111122223333:model-package-group/bench"
GIB = 1 << 30


def main() -> int:
    """Measure, print, judge."""
    if len(sys.argv) > 1:
        check(Path(sys.argv[1]))
        return 0
    sizes = [100_000, 1_000_000]
    if millions := os.environ.get("MONITOR_MILLIONS"):
        sizes.append(int(millions) * 1_000_000)
    used, memory, failed = dict[int, float](), dict[int, int](), []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            stored = write(folder, size)
            seconds, used[size], memory[size] = measure(folder)
            result = json.loads(next(folder.glob("**/result.json")).read_text())
            assert (result["requests"], result["status"]) == (size, "ok"), result["message"]
        print(
            f"{size:>10,} requests, {stored / GIB:5.2f} GiB captured: {seconds:7.1f} s, "
            f"{used[size]:7.1f} s of CPU, peak {memory[size] / 2**20:5,.0f} MiB; "
            f"{result['quality'][0]['rows']:,} labelled rows",
            flush=True,
        )
    for small, large in pairwise(sizes):
        growth = used[large] / used[small]
        more = memory[large] / memory[small]
        print(
            f"{large / small:.0f} times the requests: {growth:.1f} times the time of CPU, "
            f"{more:.2f} times the memory"
        )
        if growth > 1.2 * large / small or more > 2:
            failed.append(f"from {small:,} to {large:,} requests")
    for line in failed:
        print(f"FAILED: {line}")
    return bool(failed)


def write(folder: Path, size: int) -> int:
    """Write a baseline, captured files of a day and labels; return the bytes of captured files."""
    random = np.random.default_rng(0)
    table = _rows(random, 50_000)
    summarizer = Summarizer(COLUMNS)
    summarizer.add(rows.typed(SCHEMA, table))
    found = baseline.of(SCHEMA, summarizer)
    p = random.random(10_000)
    predicted = Predicted(SCHEMA)
    predicted.add(np.stack([1 - p, p], axis=1))
    quality = Quality({"auc": 0.83})
    Baseline(found.schema, found.rows, found.columns, predicted.summary(), quality).save(
        folder / "b/baseline"
    )
    pieces, truths = _pieces(random)
    stored, labels = 0, ["inference_id,label"]
    for start in range(0, size, PER_FILE):
        hour = (6 + 24 * start // size) % 24
        day = 27 if hour >= 6 else 28
        place = folder / f"b/bench/capture/s/version-1/bench-s/AllTraffic/2026/11/{day}/{hour:02}"
        place.mkdir(parents=True, exist_ok=True)
        lines = []
        for i in range(start, min(start + PER_FILE, size)):
            inference = f"202611{day}{hour:02}-{i:012x}"
            before, after = pieces[i % DISTINCT]
            lines.append(f"{before}{inference}{after}")
            if i % 100 == 0:
                labels.append(f"{inference},{truths[i % DISTINCT]}")
        text = "".join(lines)
        stored += len(text)
        (place / f"{start}.jsonl").write_text(text)
    (folder / "b/bench/labels/s").mkdir(parents=True)
    (folder / "b/bench/labels/s/day.csv").write_text("\n".join(labels))
    return stored


def _rows(random: np.random.Generator, count: int) -> pa.Table:
    columns: dict[str, Any] = {name: random.normal(50, 10, count).round(3) for name in NUMBERS}
    for name in TEXTS:
        columns[name] = np.array(["north", "south", "east", "west"])[random.integers(0, 4, count)]
    return pa.table(columns)


def _pieces(random: np.random.Generator) -> tuple[list[tuple[str, str]], list[str]]:
    """Return captured lines in two parts, between which the inference id stands, and labels."""
    found, truths = [], []
    for i, row in enumerate(_rows(random, DISTINCT).to_pylist()):
        p = float(random.random())
        truths.append("yes" if random.random() < p else "no")
        answer = {"prediction": "yes" if p >= 0.5 else "no", "probability": p,
                  "probabilities": {"no": 1 - p, "yes": p}}  # fmt: skip
        kind, encoding, body = "application/json", "JSON", json.dumps({"instances": [row]})
        if i % 2:
            kind, encoding, body = "text/csv", "CSV", ",".join(map(str, row.values()))
        event = {
            "captureData": {
                "endpointInput": {"observedContentType": kind, "mode": "INPUT", "data": body,
                                  "encoding": encoding},
                "endpointOutput": {"observedContentType": "application/json", "mode": "OUTPUT",
                                   "data": json.dumps({"predictions": [answer]}),
                                   "encoding": "JSON"},
            },
            "eventMetadata": {"eventId": "6f9f1f0e-0f5a-4b5c-9d7f-7f1f6f5a4b5c",
                              "inferenceId": "@@", "inferenceTime": "2026-11-27T12:00:00Z"},
            "eventVersion": "0",
        }  # fmt: skip
        before, _, after = json.dumps(event).partition("@@")
        found.append((before, f"{after}\n"))
    return found, truths


def measure(folder: Path) -> tuple[float, float, int]:
    """Return seconds, seconds of CPU and peak resident bytes of a check in its own process."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen([sys.executable, __file__, str(folder)])
    peak = [0]
    watch = threading.Thread(target=_watch, args=(process.pid, peak), daemon=True)
    watch.start()
    if process.wait() != 0:
        raise SystemExit("the check failed")
    seconds = time.perf_counter() - start
    watch.join()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, used, peak[0]


def _watch(pid: int, peak: list[int]) -> None:
    try:
        process = psutil.Process(pid)
        while process.status() != psutil.STATUS_ZOMBIE:
            peak[0] = max(peak[0], process.memory_info().rss)
            time.sleep(0.05)
    except psutil.NoSuchProcess:
        return


# A bucket that is a folder, in the process that is measured


class Bucket:
    """What the job uses of S3's client, on the files of a folder."""

    class exceptions:  # as botocore's clients have it
        class NoSuchKey(Exception):
            """There is no such object."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "b"

    def get_paginator(self, name: str) -> "Bucket":
        """Return the paginator of list_objects_v2."""
        assert name == "list_objects_v2"
        return self

    def paginate(
        self, Bucket: str, Prefix: str, Delimiter: str = "", StartAfter: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Yield one page."""
        place = self.folder / Prefix
        if Delimiter:
            names = sorted(p.name for p in place.iterdir()) if place.is_dir() else []
            yield {"CommonPrefixes": [{"Prefix": f"{Prefix}{name}/"} for name in names]}
            return
        files = sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else []
        yield {
            "Contents": [
                {"Key": p.relative_to(self.folder).as_posix(), "Size": p.stat().st_size,
                 "ETag": str(p.stat().st_mtime_ns), "LastModified": UNTIL}
                for p in files
            ]
        }  # fmt: skip

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        """Return a file's content."""
        path = self.folder / Key
        if not path.exists():
            raise self.exceptions.NoSuchKey(Key)
        return {"Body": path.open("rb"), "ContentType": ""}

    def put_object(self, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        """Write a file."""
        path = self.folder / Key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(Body)


class Others:
    """What the job uses of SageMaker's and CloudWatch's clients."""

    def describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:
        """Return the place of the baseline."""
        statistics = {"S3Uri": "s3://b/baseline/statistics.json"}
        return {"DriftCheckBaselines": {"ModelDataQuality": {"Statistics": statistics}}}

    def put_metric_data(self, **given: Any) -> None:
        """Take metrics."""


def check(folder: Path) -> None:
    """Run the job."""
    from sm_mlops.tabular.monitor import Clients, Job, Settings
    from sm_mlops.tabular.windows import Store, Window

    bucket = Bucket(folder)
    clients = Clients(bucket, Others(), Others())
    job = Job(clients, Store(bucket, "b", "bench", "s"), GROUP, Settings(), UNTIL)
    job.run(Window.ending(UNTIL, 24), folder / "output")


if __name__ == "__main__":
    raise SystemExit(main())
