"""Asynchronous endpoints of the sandbox take requests from S3 and put answers there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from botocore.exceptions import ClientError

from endpoint_cases import BUCKET, ROLE, TRUST, Hosting, arrived, hosting, queue, variant
from sandbox_cases import REGION
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosting]:
    with Server(tmp_path_factory.mktemp("queue"), REGION) as server:
        yield hosting(server)


@pytest.fixture(scope="module")
def endpoint(aws: Hosting) -> str:
    return aws.deploy(aws.named("queued", **queue()))


def test_an_answer_is_written_where_the_request_was_told(aws: Hosting, endpoint: str) -> None:
    source = aws.put("asked/rows.csv", "1,2,3")
    answer = aws.runtime.invoke_endpoint_async(
        EndpointName=endpoint, InputLocation=source, ContentType="text/csv", InferenceId="mine"
    )
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert answer["InferenceId"] == "mine"
    assert answer["OutputLocation"].startswith(f"s3://{BUCKET}/answers/")
    assert json.loads(arrived(aws, answer["OutputLocation"]))["data"] == "1,2,3"


def test_a_failure_is_written_beside(aws: Hosting, endpoint: str) -> None:
    source = aws.put("asked/raise", "raise")
    answer = aws.runtime.invoke_endpoint_async(EndpointName=endpoint, InputLocation=source)
    assert answer["FailureLocation"].startswith(f"s3://{BUCKET}/failures/")
    assert b"500 Internal Server Error" in arrived(aws, answer["FailureLocation"])
    missing = aws.runtime.invoke_endpoint_async(
        EndpointName=endpoint, InputLocation=f"s3://{BUCKET}/asked/nothing"
    )
    assert b"There is no object" in arrived(aws, missing["FailureLocation"])


def test_the_role_must_be_allowed_to_read_requests_and_write_answers(aws: Hosting) -> None:
    aws.iam.create_role(RoleName="narrow", AssumeRolePolicyDocument=json.dumps(TRUST))
    allowed = {
        "Effect": "Allow",
        "Action": ["s3:GetObject", "s3:PutObject"],
        "Resource": [f"arn:aws:s3:::{BUCKET}/{name}/*" for name in ("models", "in", "failures")],
    }
    aws.iam.put_role_policy(
        RoleName="narrow",
        PolicyName="p",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )
    model = aws.model(aws.package(), ExecutionRoleArn=ROLE.replace("hosting", "narrow"))
    name = aws.deploy(aws.config(variant(model), **queue()))

    def failure(key: str) -> bytes:
        answer = aws.runtime.invoke_endpoint_async(
            EndpointName=name, InputLocation=aws.put(key, "rows")
        )
        return arrived(aws, answer["FailureLocation"])

    assert b"not authorized to perform: s3:GetObject" in failure("elsewhere/rows")
    assert b"not authorized to perform: s3:PutObject" in failure("in/rows")


def test_topics_are_refused_by_name(aws: Hosting) -> None:
    topics = {"SuccessTopic": "arn:aws:sns:us-east-1:123456789012:inference"}
    with pytest.raises(ClientError, match="CreateEndpointConfig with NotificationConfig"):
        aws.named("loud", **queue(NotificationConfig=topics))


def test_a_request_in_the_body_is_refused_by_name(aws: Hosting, endpoint: str) -> None:
    with pytest.raises(ClientError, match="InvokeEndpointAsync without InputLocation"):
        aws.runtime.invoke_endpoint_async(EndpointName=endpoint, Body=b"1,2")


def test_each_kind_of_endpoint_has_its_own_operation(aws: Hosting, endpoint: str) -> None:
    with pytest.raises(ClientError, match="answers InvokeEndpointAsync only"):
        aws.ask(endpoint)
    direct = aws.deploy(aws.named("direct"))
    with pytest.raises(ClientError, match="is not asynchronous: use InvokeEndpoint"):
        aws.runtime.invoke_endpoint_async(EndpointName=direct, InputLocation=f"s3://{BUCKET}/x")
    with pytest.raises(ClientError, match="AsyncInferenceConfig parameter cannot be removed"):
        aws.update(endpoint, aws.named("direct now"))
    with pytest.raises(ClientError, match="AsyncInferenceConfig parameter cannot be added"):
        aws.update(direct, aws.named("queued now", **queue()))
