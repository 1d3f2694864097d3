"""Functions, queues and rules for tests of the sandbox's events."""

from __future__ import annotations

import io
import json
import time
import zipfile
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeVar

from sandbox_cases import BUCKET, GROUP, REGION, World, register

ACCOUNT = "123456789012"
MAY = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["logs:*", "sqs:SendMessage", "s3:*"],
            "Resource": "*",
        }
    ],
}
EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
T = TypeVar("T")


def trust(service: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def archive(**files: str) -> bytes:
    """Return a zip; `handler="..."` becomes handler.py."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as target:
        for name, text in files.items():
            target.writestr(name if "/" in name else f"{name}.py", text)
    return body.getvalue()


class Wired(World):
    """A world with functions, queues and rules."""

    @cached_property
    def functions(self) -> Any:
        return self.client("lambda")

    @cached_property
    def events(self) -> Any:
        return self.client("events")

    @cached_property
    def sqs(self) -> Any:
        return self.client("sqs")

    def role(self, name: str, policy: Any = MAY, service: str = "lambda.amazonaws.com") -> str:
        made = self.iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(service))
        if policy:
            self.iam.put_role_policy(
                RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy)
            )
        return str(made["Role"]["Arn"])

    def function(self, name: str, code: str, **more: Any) -> str:
        role = more.pop("Role", None) or self.role(f"role-{name}")
        made = self.functions.create_function(
            FunctionName=name,
            Runtime="python3.13",
            Role=role,
            Handler="handler.handler",
            Code={"ZipFile": archive(handler=code)},
            Architectures=["arm64"],
            **more,
        )
        return str(made["FunctionArn"])

    def call(self, name: str, event: Any = None, **more: Any) -> tuple[Any, dict[str, Any]]:
        answer = self.functions.invoke(
            FunctionName=name, Payload=json.dumps(event or {}), LogType="Tail", **more
        )
        return json.loads(answer["Payload"].read() or b"null"), answer

    def queue(self, name: str, *services: str) -> str:
        """Return the ARN of a new queue; the services may send to it."""
        url = self.sqs.create_queue(QueueName=name)["QueueUrl"]
        arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:{name}"
        if services:
            statement = {
                "Effect": "Allow",
                "Principal": {"Service": list(services)},
                "Action": "sqs:SendMessage",
                "Resource": arn,
            }
            policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            self.sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
        return arn

    def messages(self, arn: str) -> list[dict[str, Any]]:
        url = self.sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]
        found: list[dict[str, Any]] = []
        while True:
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
            )
            if not answer.get("Messages"):
                return found
            found += answer["Messages"]

    def rule(self, name: str, pattern: Any, target: str, **more: Any) -> str:
        rule = self.events.put_rule(Name=name, EventPattern=json.dumps(pattern))["RuleArn"]
        self.events.put_targets(Rule=name, Targets=[{"Id": "t", "Arn": target, **more}])
        return str(rule)

    def permit(self, function: str, rule: str) -> None:
        self.functions.add_permission(
            FunctionName=function,
            StatementId="events",
            Action="lambda:InvokeFunction",
            Principal="events.amazonaws.com",
            SourceArn=rule,
        )

    def log(self, name: str) -> str:
        try:
            rows = self.logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        except self.logs.exceptions.ResourceNotFoundException:
            return ""
        return "".join(row["message"] for row in rows)

    def version(self, **more: Any) -> str:
        request = register("s3://b/model.tar.gz", **more)
        return str(self.sagemaker.create_model_package(**request)["ModelPackageArn"])

    def approve(self, arn: str, status: str = "Approved") -> None:
        self.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus=status)


def until(look: Callable[[], T | None], seconds: float = 15) -> T:
    """Look until there is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise TimeoutError(f"still {look()!r}")


COUNT = """
import json, os, boto3
def handler(event, context):
    s3 = boto3.client("s3")
    key = f"tries/{event['name']}"
    found = s3.list_objects_v2(Bucket="sandbox-tests", Prefix=key + "/")
    tries = 1 + len(found.get("Contents", []))
    s3.put_object(Bucket="sandbox-tests", Key=f"{key}/{tries}", Body=context.aws_request_id)
    if tries < event["good"]:
        raise RuntimeError(f"try {tries}")
    return tries
"""


def tries(aws: Wired, name: str) -> list[str]:
    rows = aws.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"tries/{name}/").get("Contents", [])
    return [aws.s3.get_object(Bucket=BUCKET, Key=r["Key"])["Body"].read().decode() for r in rows]


__all__ = ["COUNT", "GROUP", "Wired", "archive", "tries", "trust", "until"]
