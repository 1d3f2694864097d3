"""What a deployment leaves for others to read: the version as a metric, and the tags of its log.

A deployment does not fail for want of these: a line says what is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from sm_mlops.aws import ABSENT, Aws, ignoring
from sm_mlops.deployment import endpoints
from sm_mlops.deployment.stages import Stage
from sm_mlops.display import tell
from sm_mlops.errors import one_line

NAMESPACE, VERSION = "sm-mlops", "Version"


def keep(home: Aws, there: Aws, stage: Stage, number: int, console: Console) -> None:
    """Record the version as a metric where the project's dashboard is, in its account, and tag the
    log group that SageMaker makes for an endpoint, untagged, when it first writes."""
    dimensions = {"Project": home.settings.project.project, "Stage": stage.name}
    datum = {
        "MetricName": VERSION,
        "Dimensions": [{"Name": name, "Value": value} for name, value in dimensions.items()],
        "Value": float(number),
    }
    with _telling("the dashboard does not show this version", console):
        home.client("cloudwatch").put_metric_data(Namespace=NAMESPACE, MetricData=[datum])
    arn = there.arn("logs", f"log-group:{endpoints.LOG_GROUP}/{stage.stack}")
    with _telling("the log of the endpoint has no tags", console):
        there.client("logs").tag_resource(resourceArn=arn, tags=stage.tags)


@contextmanager
def _telling(otherwise: str, console: Console) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        with ignoring(*ABSENT):
            yield
    except (BotoCoreError, ClientError) as error:
        tell(console, f"{otherwise}: {one_line(error)}")
