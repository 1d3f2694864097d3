"""A stage whose traffic is monitored: its baselines, captured requests and labels in moto's S3."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from botocore.exceptions import ClientError
from moto import mock_aws

from sm_mlops.tabular import baseline, metrics, rows
from sm_mlops.tabular.baseline import Baseline, Predicted, Quality, Summarizer
from sm_mlops.tabular.monitor import Clients, Job, Settings
from sm_mlops.tabular.schema import Column, Schema
from sm_mlops.tabular.windows import Store, Window

BUCKET, PROJECT, STAGE = "artifacts", "churn", "production"
GROUP = "arn:aws:sagemaker:eu-west-1:111122223333:model-package-group/churn"
UNTIL = datetime(2026, 11, 28, 6, 10, tzinfo=UTC)
COLUMNS = [
    Column("age", "number"),
    Column("income", "number"),
    Column("plan", "text"),
    Column("active", "boolean"),
    Column("since", "date"),
]
NAMES = [column.name for column in COLUMNS]
SCHEMA = Schema("binary", "churned", ["no", "yes"], COLUMNS, [], {"threshold": 0.5})
Floats = npt.NDArray[np.float64]


def people(random: np.random.Generator, count: int, **shift: float) -> dict[str, list[Any]]:
    """Return raw rows by column; `shift` moves a number, or the share of another plan."""
    age = random.normal(45 + shift.get("age", 0), 12, count).round(1)
    income = random.lognormal(8 + shift.get("income", 0), 0.6, count).round(2)
    plans = random.choice(["basic", "plus", "pro"], count, p=[0.6, 0.3, 0.1])
    plans = np.where(random.random(count) < shift.get("plan", 0), "team", plans)
    active = random.random(count) < 0.8
    days = random.integers(0, 1000, count)
    since = [f"{datetime(2023, 1, 1) + timedelta(int(day)):%Y-%m-%d}" for day in days]
    return {
        "age": [None if gap else value for gap, value in
                zip(random.random(count) < shift.get("missing", 0.01), age.tolist(), strict=True)],
        "income": income.tolist(),
        "plan": plans.tolist(),
        "active": active.tolist(),
        "since": since,
    }  # fmt: skip


def probability(found: dict[str, list[Any]]) -> Floats:
    """Return what the model predicts."""
    age = np.array([45 if value is None else value for value in found["age"]], float)
    return 1 / (1 + np.exp(-(age - 45) / 6))


def objects(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Return the rows as objects."""
    return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]


def predictions(probabilities: Floats) -> str:
    """Return the endpoint's answer in JSON."""
    return json.dumps(
        {
            "predictions": [
                {
                    "prediction": "yes" if p >= 0.5 else "no",
                    "probability": p,
                    "probabilities": {"no": 1 - p, "yes": p},
                }
                for p in probabilities.tolist()
            ]
        }
    )


def line(
    body: str,
    answer: str,
    kind: str = "application/json",
    inference_id: str | None = None,
    encoding: str = "JSON",
    answered: str = "application/json",
) -> str:
    """Return one line of a captured file."""
    data = base64.b64encode(body.encode()).decode() if encoding == "BASE64" else body
    about = {"eventId": "e", "inferenceTime": "2026-11-28T05:00:00Z"}
    return json.dumps(
        {
            "captureData": {
                "endpointInput": {"observedContentType": kind, "mode": "INPUT",
                                  "data": data, "encoding": encoding},
                "endpointOutput": {"observedContentType": answered, "mode": "OUTPUT",
                                   "data": answer, "encoding": "JSON"},
            },
            "eventMetadata": about | ({"inferenceId": inference_id} if inference_id else {}),
            "eventVersion": "0",
        }
    )  # fmt: skip


def trained(count: int = 3000, seed: int = 0) -> Baseline:
    """Return the baseline of a version."""
    random = np.random.default_rng(seed)
    summarizer = Summarizer(COLUMNS)
    summarizer.add(rows.typed(SCHEMA, pa.table(people(random, count))))
    found = baseline.of(SCHEMA, summarizer)
    p = probability(people(random, count // 4))
    predicted = Predicted(SCHEMA)
    predicted.add(np.stack([1 - p, p], axis=1))
    truth = (random.random(len(p)) < p).astype(int)
    measured = metrics.classification(truth, np.stack([1 - p, p], axis=1))
    quality = Quality(measured)
    return Baseline(found.schema, found.rows, found.columns, predicted.summary(), quality)


@dataclass
class SageMaker:
    """A model package group, by version the address of its baseline."""

    versions: dict[str, str | None] = field(default_factory=dict)

    class exceptions:  # as botocore's clients have it
        ClientError = ClientError

    def describe_model_package(self, ModelPackageName: str) -> dict[str, Any]:
        version = ModelPackageName.rpartition("/")[2]
        package = GROUP.replace("model-package-group", "model-package")
        assert ModelPackageName == f"{package}/{version}"
        if version not in self.versions:
            raise ClientError({"Error": {"Code": "ValidationException"}}, "DescribeModelPackage")
        uri = self.versions[version]
        if uri is None:
            return {}
        return {"DriftCheckBaselines": {"ModelDataQuality": {"Statistics": {"S3Uri": uri}}}}


@dataclass
class CloudWatch:
    """Keeps the metrics that are put."""

    metrics: list[dict[str, Any]] = field(default_factory=list)

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:
        assert Namespace == "sm-mlops"
        self.metrics += MetricData


def as_to_a_role(parsed: dict[str, Any], **_: Any) -> None:
    """Answer for a missing object as S3 may answer a role that lists only below a prefix."""
    if parsed.get("Error", {}).get("Code") == "NoSuchKey":
        parsed["Error"]["Code"] = "AccessDenied"


class Stage:
    """A monitored stage."""

    def __init__(self, tmp_path: Path, settings: Settings | None = None) -> None:
        self.s3 = boto3.client("s3", region_name="us-east-1")
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.meta.events.register("after-call.s3.GetObject", as_to_a_role)
        self.sagemaker, self.cloudwatch = SageMaker(), CloudWatch()
        self.output, self.folder = tmp_path / "output", tmp_path
        self.settings = settings or Settings()
        self.random = np.random.default_rng(1)
        self.now = UNTIL

    def train(self, version: str = "1", **given: Any) -> None:
        """Register a version with a baseline."""
        trained(**given).save(self.folder)
        key = f"{PROJECT}/baselines/{version}"
        self.put(f"{key}/baseline.json", (self.folder / "baseline.json").read_text())
        self.sagemaker.versions[version] = f"s3://{BUCKET}/{key}/statistics.json"

    def put(self, key: str, text: str, **more: Any) -> None:
        """Write an object."""
        self.s3.put_object(Bucket=BUCKET, Key=key, Body=text.encode(), **more)

    def capture(self, lines: list[str], hour: str = "2026/11/27/07", version: str = "1") -> None:
        """Write a captured file into the folder of an hour."""
        name = f"{self.random.integers(1 << 40)}.jsonl"
        place = f"version-{version}/churn-production/AllTraffic/{hour}"
        text = "".join(f"{each}\n" for each in lines)
        self.put(f"{PROJECT}/capture/{STAGE}/{place}/{name}", text)

    def traffic(self, count: int, hour: str = "2026/11/27/07", version: str = "1",
                wrong: float = 0.0, **shift: float) -> list[tuple[str, str]]:  # fmt: skip
        """Capture requests of one row, and return id and true label of each.

        `wrong` is the share of labels that have nothing to do with the prediction.
        """
        found = people(self.random, count, **shift)
        p = probability(found)
        noise = self.random.random(count) < wrong
        truth = self.random.random(count) < np.where(noise, 0.5, p)
        start = hour.replace("/", "")
        ids = [f"{start}-{self.random.integers(1 << 60):x}" for _ in range(count)]
        lines = [
            line(json.dumps({"instances": [row]}), predictions(p[i : i + 1]), inference_id=ids[i])
            for i, row in enumerate(objects(found))
        ]
        self.capture(lines, hour, version)
        return [(ids[i], "yes" if truth[i] else "no") for i in range(count)]

    def label(self, labels: list[tuple[str, str]], name: str = "day.csv") -> None:
        """Write labels."""
        text = "inference_id,label\n" + "".join(f"{i},{label}\n" for i, label in labels)
        self.put(f"{PROJECT}/labels/{STAGE}/{name}", text)

    def check(self, until: datetime = UNTIL) -> dict[str, Any]:
        """Run the job, and return the result of the newest window."""
        clients = Clients(self.s3, self.sagemaker, self.cloudwatch)
        store = Store(self.s3, BUCKET, PROJECT, STAGE)
        window = Window.ending(until, self.settings.window_hours)
        self.now = max(self.now, until)
        job = Job(clients, store, GROUP, self.settings, self.now)
        self.verdict = job.run(window, self.output)
        return self.result(until)

    def result(self, until: datetime) -> dict[str, Any]:
        """Return the result of a window."""
        window = Window.ending(until, self.settings.window_hours)
        return Store(self.s3, BUCKET, PROJECT, STAGE).result(window) or {}

    def stored(self, folder: str) -> list[Any]:
        """Return the objects below a folder of the project."""
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{PROJECT}/{folder}/")
        return list(listed.get("Contents", ()))

    def measured(self, name: str) -> list[float]:
        """Return the values of a metric so far."""
        return [each["Value"] for each in self.cloudwatch.metrics if each["MetricName"] == name]


@contextmanager
def monitored(tmp_path: Path, settings: Settings | None = None) -> Iterator[Stage]:
    """Yield a stage in moto."""
    with mock_aws():
        yield Stage(tmp_path, settings)
