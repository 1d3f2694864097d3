"""Predictions through a sandbox endpoint, against calling the same functions directly.

Prints a table: for payloads of 1, 100 and 10,000 rows of CSV the median of transform_fn in
one process, the median and 99th percentile through InvokeEndpoint, the difference of
the medians, and requests per second of 1, 8 and 32 clients. Ends with the rows per second inside
predict and the time from CreateEndpoint to InService.
"""

import contextlib
import importlib
import io
import statistics
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from sm_mlops import sandbox

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "bench")]


import endpoint_cases as cases  # noqa: E402
from sandbox_cases import there  # noqa: E402

packaged: Callable[[Path], tuple[Path, list[str]]] = importlib.import_module("predict").packaged

SIZES = (1, 100, 10_000)
CLIENTS = (1, 8, 32)
ROUNDS = {1: 300, 100: 200, 10_000: 25}
SECONDS = 3.0


def timed(call: Callable[[], Any], rounds: int) -> list[float]:
    """Sorted milliseconds of `rounds` calls, after two that do not count."""
    times = []
    for number in range(rounds + 2):
        begun = time.perf_counter()
        call()
        if number > 1:
            times.append((time.perf_counter() - begun) * 1000)
    return sorted(times)


def per_second(call: Callable[[int], Any], clients: int) -> float:
    """Answers per second that so many clients get together."""
    counts, end = [0] * clients, time.perf_counter() + SECONDS

    def client(number: int) -> None:
        while time.perf_counter() < end:
            call(number)
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def hosted(aws: Any, model_dir: Path) -> tuple[str, float]:
    """The name of an endpoint of this model, and the seconds from its creation to InService."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for path in model_dir.iterdir():
            tar.add(path, path.name)
    url = aws.put("model.tar.gz", archive.getvalue())
    config = aws.config(cases.variant(aws.model(aws.package_of(url))))
    begun = time.perf_counter()
    name = aws.deploy(config)
    return name, time.perf_counter() - begun


def measure(aws: Any, work: Path, signed_in: Mapping[str, str]) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        model_dir, (header, *rows) = packaged(work)
        sys.path.insert(0, str(model_dir / "code"))
        inference: Any = importlib.import_module("inference")
        from sm_mlops.tabular import inference as library
        from sm_mlops.tabular import serving

        model = inference.model_fn(str(model_dir))
    name, startup = hosted(aws, model_dir)
    clients = [
        boto3.client(
            "sagemaker-runtime",
            endpoint_url=aws.runtime.meta.endpoint_url,
            region_name=cases.REGION,
            aws_access_key_id=signed_in["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=signed_in["AWS_SECRET_ACCESS_KEY"],
            config=Config(retries={"total_max_attempts": 1}),
        )
        for _ in range(max(CLIENTS))
    ]
    heads = "".join(f"{f'{count} clients/s':>14}" for count in CLIENTS)
    print(f"{'rows':>7}{'direct ms':>11}{'endpoint ms':>13}{'p99 ms':>8}{'more ms':>9}{heads}")
    for size in SIZES:
        lines = [header, *(rows * (size // len(rows) + 1))[:size]]
        body = "\n".join(lines)

        def direct(body: str = body) -> None:
            inference.transform_fn(model, body, "text/csv", "text/csv")

        def invoke(number: int = 0, body: str = body) -> None:
            answer = clients[number].invoke_endpoint(
                EndpointName=name, Body=body, ContentType="text/csv", Accept="text/csv"
            )
            answer["Body"].read()

        here, through_it = timed(direct, ROUNDS[size]), timed(invoke, ROUNDS[size])
        rates = "".join(f"{per_second(invoke, count):>14,.0f}" for count in CLIENTS)
        alone, through = statistics.median(here), statistics.median(through_it)
        p99 = through_it[round(0.99 * (len(through_it) - 1))]
        print(f"{size:>7,}{alone:>11.2f}{through:>13.2f}{p99:>8.2f}{through - alone:>9.2f}{rates}")
    table = serving.rows(body, "text/csv", model.schema)
    inside = statistics.median(timed(lambda: library.predictions(model, table), 25))
    print(
        f"predict: {SIZES[-1] / inside * 1000:,.0f} rows a second; "
        f"an endpoint starts in {startup:.2f} s; single row at most 15 ms more"
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        sandbox.start(root, cases.REGION)
        try:
            variables = there(root)
            measure(cases.Hosting(variables).prepare(), root / "model", variables)
        finally:
            sandbox.stop(root)


if __name__ == "__main__":
    main()
