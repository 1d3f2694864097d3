"""Lambda in the sandbox: deployed code runs in its own process, is retried, logged, measured."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from function_cases import COUNT, Wired, archive, tries, until
from sandbox_cases import BUCKET
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("functions"), "eu-west-1") as server:
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Wired:
    world = Wired(server.environment())
    world.prepare()
    return world


LOOK = """
import os, sys
def handler(event, context):
    print("hello from the function")
    return {
        "event": event,
        "name": context.function_name,
        "left": context.get_remaining_time_in_millis() > 0,
        "env": {k: os.environ.get(k) for k in event.get("env", [])},
        "pid": os.getpid(),
        "modules": sorted(m for m in event.get("modules", []) if _has(m)),
    }
def _has(name):
    try:
        __import__(name)
    except ImportError:
        return False
    return True
"""


def test_the_deployed_code_answers(aws: Wired) -> None:
    aws.function("look", LOOK, MemorySize=256, Environment={"Variables": {"MODE": "test"}})
    event = {"env": ["MODE", "AWS_REGION", "HOME_OF_NOBODY"]}
    answer, raw = aws.call("look", event)
    assert answer["event"] == event and answer["name"] == "look" and answer["left"]
    assert answer["env"] == {"MODE": "test", "AWS_REGION": "eu-west-1", "HOME_OF_NOBODY": None}
    assert "FunctionError" not in raw
    tail = base64.b64decode(raw["LogResult"]).decode()
    assert "hello from the function" in tail and "Memory Size: 256 MB\tMax Memory Used: " in tail
    for word in ("START RequestId: ", "END RequestId: ", "REPORT RequestId: "):
        assert word in aws.log("look")


def test_a_function_has_the_runtime_and_its_own_files_only(aws: Wired) -> None:
    aws.function("bare", LOOK)
    asked = ["boto3", "botocore", "urllib3", "cryptography", "jwt", "numpy", "sandbox", "moto"]
    answer, _ = aws.call("bare", {"modules": asked})
    assert answer["modules"] == ["boto3", "botocore", "urllib3"]


def test_a_layer_adds_its_contents(aws: Wired) -> None:
    layer = aws.functions.publish_layer_version(
        LayerName="words",
        Content={"ZipFile": archive(**{"python/greeting.py": "WORD = 'from the layer'"})},
    )["LayerVersionArn"]
    code = "import greeting\ndef handler(event, context):\n    return greeting.WORD\n"
    aws.function("layered", code, Layers=[layer])
    assert aws.call("layered")[0] == "from the layer"


ARM = "\x7fELF\x02\x01" + "\0" * 12 + "\xb7\0"


def test_compiled_packages_of_a_layer_for_another_machine_are_replaced_and_reported(
    aws: Wired,
) -> None:
    files = {
        "python/cryptography/__init__.py": "raise ImportError('for arm64')",
        "python/cryptography/hazmat/bindings/_rust.abi3.so": ARM,
        "python/_cffi_backend.cpython-313-aarch64-linux-gnu.so": ARM,
        "python/elsewhere/_only.so": ARM,
        "python/plain.py": "WORD = 'from the layer'",
    }
    layer = aws.functions.publish_layer_version(
        LayerName="crypto", Content={"ZipFile": archive(**files)}
    )["LayerVersionArn"]
    code = (
        "import plain\n"
        "from cryptography.hazmat.primitives.asymmetric import rsa\n"
        "def handler(event, context):\n"
        "    return [plain.WORD, rsa.generate_private_key(65537, 2048).key_size]\n"
    )
    aws.function("signed", code, Layers=[layer], MemorySize=256, Timeout=20)
    answer, raw = aws.call("signed")
    assert answer == ["from the layer", 2048]
    [line] = [x for x in base64.b64decode(raw["LogResult"]).decode().splitlines() if "[sand" in x]
    assert "taken from this environment instead: cffi, cryptography, elsewhere (which is" in line


def test_a_layer_that_fits_this_machine_is_left_as_it_is(aws: Wired) -> None:
    import sys

    own = Path(sys.executable).read_bytes()[:20]
    if not own.startswith(b"\x7fELF"):
        pytest.skip("libraries here are of another format than Lambda's")
    files = {"python/cryptography/__init__.py": "WHOSE = 'of the layer'"}
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as target:
        for name, text in files.items():
            target.writestr(name, text)
        target.writestr("python/cryptography/_rust.abi3.so", own)
    layer = aws.functions.publish_layer_version(
        LayerName="fits", Content={"ZipFile": body.getvalue()}
    )["LayerVersionArn"]
    code = "import cryptography\ndef handler(event, context):\n    return cryptography.WHOSE\n"
    aws.function("fitting", code, Layers=[layer])
    answer, raw = aws.call("fitting")
    assert answer == "of the layer"
    assert "[sandbox]" not in base64.b64decode(raw["LogResult"]).decode()


ERRORS = {
    "raises": ("def handler(e, c):\n    raise KeyError('x')", "KeyError", "'x'"),
    "absent module": ("import nowhere", "Runtime.ImportModuleError", "No module named 'nowhere'"),
    "absent handler": ("x = 1", "AttributeError", "has no attribute 'handler'"),
    "syntax": ("def handler(:", "SyntaxError", "invalid syntax"),
    "exits": (
        "import os\ndef handler(e, c):\n    os._exit(3)",
        "Runtime.ExitError",
        "exit status 3",
    ),
    "no JSON": ("def handler(e, c):\n    return {1, 2}", "Runtime.MarshalError", "not JSON"),
    "too much": (
        "def handler(e, c):\n    return len(b'x' * 200_000_000)",
        "Runtime.OutOfMemory",
        "signal: killed",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_a_failure_has_the_runtimes_type_and_words(aws: Wired, case: str) -> None:
    code, kind, message = ERRORS[case]
    name = case.replace(" ", "-")
    aws.function(name, code)
    answer, raw = aws.call(name)
    assert raw["FunctionError"] == "Unhandled" and raw["StatusCode"] == 200
    assert answer["errorType"] == kind and message in answer["errorMessage"]
    assert message in aws.log(name)


def test_a_function_that_takes_too_long_is_stopped(aws: Wired) -> None:
    aws.function("slow", "import time\ndef handler(e, c):\n    time.sleep(30)", Timeout=1)
    answer, raw = aws.call("slow")
    assert raw["FunctionError"] == "Unhandled"
    assert "Task timed out after 1.00 seconds" in answer["errorMessage"]


def test_a_function_acts_as_its_role_and_reaches_the_sandbox_only(aws: Wired) -> None:
    code = (
        "import boto3, urllib.request\n"
        "def handler(event, context):\n"
        "    who = boto3.client('sts').get_caller_identity()['Arn']\n"
        "    try:\n"
        "        urllib.request.build_opener(urllib.request.ProxyHandler({})).open('http://192.0.2.1/')\n"
        "    except OSError as error:\n"
        "        return [who, 'this machine only' in str(error)]\n"
    )
    aws.function("who", code, Timeout=20, MemorySize=256)
    answer, _ = aws.call("who")
    assert answer == ["arn:aws:sts::123456789012:assumed-role/role-who/who", True]


def test_code_from_a_bucket_runs(aws: Wired) -> None:
    aws.put("f.zip", archive(handler="def handler(e, c):\n    return 'from S3'"))
    aws.function("zipped", "def handler(e, c):\n    return 1")
    aws.functions.update_function_code(FunctionName="zipped", S3Bucket=BUCKET, S3Key="f.zip")
    assert aws.call("zipped")[0] == "from S3"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a reserved variable": ({"Environment": {"Variables": {"AWS_REGION": "x"}}}, "reserved keys"),
    "a role that Lambda cannot take": ({"Role": "arn:aws:iam::123456789012:role/r"}, "assumed by"),
    "an absent object": ({"Code": {"S3Bucket": BUCKET, "S3Key": "nothing"}}, "NoSuchKey"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_lambda_refuses_is_refused(aws: Wired, case: str) -> None:
    more, message = REFUSED[case]
    given = {
        "FunctionName": "refused",
        "Runtime": "python3.13",
        "Role": aws.role(f"r-{case.replace(' ', '-')}", policy=None),
        "Handler": "handler.handler",
        "Code": {"ZipFile": archive(handler="")},
        **more,
    }
    with pytest.raises(ClientError, match=message) as caught:
        aws.functions.create_function(**given)
    assert caught.value.response["Error"]["Code"] == "InvalidParameterValueException"


NOT_HERE: dict[str, tuple[dict[str, Any], str]] = {
    "runtime": ({"Runtime": "python3.9"}, "the runtime python3.9"),
    "image": ({"PackageType": "Image"}, "PackageType Image of lambda functions"),
    "dead letters": (
        {"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:eu-west-1:123456789012:q"}},
        "DeadLetterConfig of lambda functions",
    ),
}


@pytest.mark.parametrize("case", NOT_HERE)
def test_what_no_function_of_ours_has_is_refused_by_name(aws: Wired, case: str) -> None:
    more, what = NOT_HERE[case]
    given = {
        "FunctionName": "refused",
        "Runtime": "python3.13",
        "Role": aws.role(f"n-{case.replace(' ', '-')}"),
        "Handler": "handler.handler",
        "Code": {"ZipFile": archive(handler="")},
        **more,
    }
    with pytest.raises(ClientError, match=f"does not implement {what}"):
        aws.functions.create_function(**given)


def test_a_missing_function_is_reported_as_missing(aws: Wired) -> None:
    with pytest.raises(aws.functions.exceptions.ResourceNotFoundException, match="not found"):
        aws.call("nobody")
    aws.function("json", "def handler(e, c):\n    return 1")
    with pytest.raises(ClientError, match="Could not parse request body"):
        aws.functions.invoke(FunctionName="json", Payload=b"{")


def test_a_role_without_log_permissions_writes_no_log(aws: Wired) -> None:
    role = aws.role("silent", policy=None)
    aws.function("silent", "def handler(e, c):\n    return 1", Role=role)
    assert aws.call("silent")[0] == 1
    assert aws.log("silent") == ""


def test_an_asynchronous_failure_is_retried_twice_then_dead_lettered(
    aws: Wired, server: Server
) -> None:
    failed = aws.queue("failed")
    arn = aws.function("unlucky", COUNT, Timeout=20, MemorySize=256)
    aws.functions.put_function_event_invoke_config(
        FunctionName="unlucky", DestinationConfig={"OnFailure": {"Destination": failed}}
    )
    alarms = aws.client("cloudwatch")
    for name, space, metric, where in (
        ("errors", "AWS/Lambda", "Errors", {"Name": "FunctionName", "Value": "unlucky"}),
        (
            "depth",
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            {"Name": "QueueName", "Value": "failed"},
        ),
    ):
        alarms.put_metric_alarm(
            AlarmName=name, Namespace=space, MetricName=metric, Dimensions=[where], Period=300,
            Statistic="Maximum", EvaluationPeriods=1, Threshold=0, TreatMissingData="notBreaching",
            ComparisonOperator="GreaterThanThreshold",
        )  # fmt: skip
    event = {"name": "unlucky", "good": 99}
    server.integrations.functions.invoke_later(arn, event)
    sent = json.loads(until(lambda: aws.messages(failed))[0]["Body"])
    assert sent["requestContext"]["condition"] == "RetriesExhausted"
    assert sent["requestContext"]["approximateInvokeCount"] == 3
    assert sent["requestPayload"] == event
    assert sent["responsePayload"]["errorMessage"] == "try 3"
    same = tries(aws, "unlucky")
    assert len(same) == 3 and len(set(same)) == 1, "three tries of one request"
    states = {a["AlarmName"]: a["StateValue"] for a in alarms.describe_alarms()["MetricAlarms"]}
    assert states == {"errors": "ALARM", "depth": "ALARM"}
