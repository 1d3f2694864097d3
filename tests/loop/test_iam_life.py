"""The life of a repo with the rights of its own roles only, where AWS is as strict and late as it
can be, and what those roles may not do to another repo."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from bootstrap_case import ACCOUNT, BUCKET, OWNER, REGION, Land, land, mlops_here
from connected_case import WORKFLOW, commit
from function_cases import until
from iam_case import listed
from repos import Repo
from sandbox_cases import policy
from sm_mlops import stacks
from sm_mlops.sandbox.decisions import Verdict
from sm_mlops.sandbox.iam.actions import Check
from sm_mlops.sandbox.iam.enforcement import Guard
from sm_mlops.sandbox.identities import Identity
from sm_mlops.sandbox.policy_language import Facts

pytestmark = pytest.mark.slow
ROLES = ("churn-pipeline", *(f"churn-github-{part}" for part in ("train", "staging", "production")))
BEYOND = {
    "SageMaker does it with the role, which the sandbox does not": """
        cloudwatch:PutMetricData ecr:BatchCheckLayerAvailability ecr:BatchGetImage
        ecr:GetAuthorizationToken ecr:GetDownloadUrlForLayer logs:CreateLogGroup
        logs:CreateLogStream logs:DescribeLogStreams logs:PutLogEvents s3:GetObject s3:ListBucket
        s3:PutObject sagemaker:DescribeModelPackage sagemaker:DescribeModelPackageGroup
        sagemaker:DescribeProcessingJob sagemaker:DescribeTrainingJob sagemaker:StopProcessingJob
        sagemaker:StopTrainingJob""",
    "CloudFormation does it in some updates, by the types' handlers": """
        application-autoscaling:DescribeScalingPolicies application-autoscaling:ListTagsForResource
        application-autoscaling:TagResource application-autoscaling:UntagResource
        application-autoscaling:DescribeScheduledActions
        cloudformation:UntagResource cloudwatch:ListTagsForResource cloudwatch:UntagResource
        iam:GetRolePolicy iam:ListRoleTags iam:PutRolePermissionsBoundary iam:UntagRole
        iam:UpdateAssumeRolePolicy iam:UpdateRole sagemaker:DeleteTags sagemaker:UpdateEndpoint""",
    "checks, trainings and batches on a schedule": """
        scheduler:CreateSchedule scheduler:DeleteSchedule scheduler:GetSchedule
        scheduler:UpdateSchedule""",
    "other kinds of endpoints": """
        application-autoscaling:DeleteScalingPolicy application-autoscaling:DeregisterScalableTarget
        application-autoscaling:DescribeScalableTargets application-autoscaling:PutScalingPolicy
        application-autoscaling:RegisterScalableTarget cloudwatch:DeleteAlarms
        cloudwatch:DescribeAlarms cloudwatch:PutMetricAlarm cloudwatch:TagResource
        iam:CreateServiceLinkedRole sagemaker:InvokeEndpointAsync
        sagemaker:UpdateEndpointWeightsAndCapacities""",
    "after a failure, an interruption or a deletion": """
        cloudformation:ContinueUpdateRollback cloudformation:DeleteChangeSet
        cloudformation:DeleteStack cloudformation:DescribeEvents cloudformation:ListChangeSets
        iam:DeleteRole iam:DeleteRolePolicy iam:ListAttachedRolePolicies iam:ListRolePolicies
        logs:FilterLogEvents s3:AbortMultipartUpload sagemaker:DeleteEndpoint
        sagemaker:DeleteEndpointConfig sagemaker:DeleteModel sagemaker:ListEndpoints
        sagemaker:StopPipelineExecution""",
    "the second training": "sagemaker:ListPipelineExecutions sagemaker:UpdatePipeline",
    "quotas that the account has never changed": "servicequotas:ListAWSDefaultServiceQuotas",
    "status, rollback and later deployments": """
        cloudformation:ListStackResources iam:GetRole s3:ListBucketVersions
        sagemaker:ListModelPackages sagemaker:ListTags""",
}
"""What a role may be granted beyond the calls of its life here, by the reason."""


class Job:
    """A job of a repo's workflow, signed in as the role it is for: build.yml's in the environment
    training, deploy.yml's in that of a stage."""

    def __init__(self, land: Land, repo: Repo, environment: str = "training") -> None:
        name = repo.settings().project.project
        self.repo = repo
        part = "train" if environment == "training" else environment
        self.role = f"arn:aws:iam::{ACCOUNT}:role/{name}-github-{part}"
        found = land.server.integrations.workflows.environment(
            f"{OWNER}/{name}",
            environment=environment,
            workflow="build.yml" if part == "train" else "deploy.yml",
            role_arn=self.role,
        )
        self.variables = {key: value for key, value in found.items() if value}

    def mlops(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command as a step of the job."""
        done = mlops_here(self.repo.root, *arguments, **self.variables)
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def client(self, service: Any) -> Any:
        return client(service, self.variables)


def client(service: Any, variables: dict[str, str]) -> Any:
    return boto3.client(
        service,
        region_name=REGION,
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        aws_session_token=variables["AWS_SESSION_TOKEN"],
    )


def shown(land: Land, stage: str) -> dict[str, Any]:
    """Return what a person sees of a stage."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    done = mlops_here(land.repo.root, "status", stage, "--json", **environment)
    assert done.returncode == 0, done.stderr
    [found] = json.loads(done.stdout)["stages"]
    return dict(found)


USED: defaultdict[str, set[str]] = defaultdict(set)
"""The actions that each role was allowed since `here` was made, by the role's name."""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Land]:
    """Platform and project as `mlops bootstrap` makes them for an administrator."""
    decide = Guard.verdict

    def recorded(guard: Guard, who: Identity, check: Check, facts: Facts) -> Verdict:
        found = decide(guard, who, check, facts)
        if found.allowed and ":assumed-role/" in who.arn:
            USED[who.arn.split("/")[1]].add(check.action)
        return found

    with (
        pytest.MonkeyPatch.context() as environment,
        land(tmp_path_factory.mktemp("life"), environment) as found,
    ):
        environment.setattr(Guard, "verdict", recorded)
        commit(found.server, f"{OWNER}/churn", ".github/workflows/deploy.yml", WORKFLOW)
        (found.repo.root / ".gitignore").write_text("data/\nreport.html\nrows.csv\n")
        git = ["git", "-C", str(found.repo.root), "-c", "user.name=a", "-c", "user.email=a@b.org"]
        for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
            subprocess.run([*git, *words], check=True)
        found.be_strict()
        found.act()
        token = found.server.github.accounts.token("you", "repo", "workflow")
        found.aws.client("secretsmanager").put_secret_value(
            SecretId="sm-mlops/github", SecretString=json.dumps({"token": token})
        )
        yield found


@pytest.fixture(scope="module")
def trained(here: Land) -> int:
    """Return the number of a version that the repo's workflow has trained and looked at."""
    job = Job(here, here.repo)
    done = job.mlops("run")
    assert "Registered version" in done.stdout
    job.mlops("follow")
    job.mlops("logs", "Train")
    job.mlops("report", "1", "--output", str(here.repo.root / "report.html"))
    listed = json.loads(job.mlops("models", "--json").stdout)
    return int(listed[0]["version"])


def test_a_workflow_trains_with_the_role_of_its_repo(here: Land, trained: int) -> None:
    job = Job(here, here.repo)
    assert trained == 1
    execution = here.aws.sagemaker.list_pipeline_executions(PipelineName="churn")[
        "PipelineExecutionSummaries"
    ][0]["PipelineExecutionArn"]
    described = here.aws.sagemaker.describe_pipeline_execution(PipelineExecutionArn=execution)
    assert described["PipelineExecutionStatus"] == "Succeeded"
    # All the while, nobody is told that a key is missing.
    refused(job.client("s3").head_object, Bucket=BUCKET, Key="churn/data/none.csv")
    pipeline = here.aws.sagemaker.describe_pipeline(PipelineName="churn")
    assert pipeline["RoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/churn-pipeline"


@pytest.fixture(scope="module")
def approved(here: Land, trained: int) -> str:
    """Return the ARN of that version, approved by a person."""
    arn = str(json.loads(Job(here, here.repo).mlops("models", "--json").stdout)[0]["arn"])
    here.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    return arn


def test_an_approval_is_passed_on_with_the_role_of_the_trigger(here: Land, approved: str) -> None:
    runs = here.server.github.routes.runs_of
    until(
        lambda: approved in [run["inputs"]["model-package-arn"] for run in runs(f"{OWNER}/churn")]
    )
    group = "/aws/lambda/sm-mlops-trigger"
    logs = here.account(here.repo).client("logs")
    until(lambda: logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"])
    told = until(lambda: logs.filter_log_events(logGroupName=group)["events"])
    assert any(approved in row["message"] for row in told)


@pytest.fixture
def deployed(here: Land, approved: str) -> str:
    """Return the ARN of that version, deployed to both stages by the workflow; again if a test
    has deleted them."""
    arn = approved
    for stage in ("staging", "production"):
        if stacks.describe(here.aws, f"churn-{stage}"):
            continue
        job = Job(here, here.repo, stage)
        job.mlops("deploy", stage, "--model-package-arn", arn)
        job.mlops("smoke", stage)
    return arn


def test_a_workflow_deploys_serves_and_deletes_with_its_repos_role(
    here: Land, deployed: str
) -> None:
    for stage in ("staging", "production"):
        assert shown(here, stage)["state"] == "InService"
    rows = (here.repo.root / "data" / "breast-cancer.csv").read_text().splitlines()[:2]
    (here.repo.root / "rows.csv").write_text("\n".join(rows) + "\n")
    job = Job(here, here.repo, "production")
    job.mlops("invoke", "production", "rows.csv")
    job.mlops("logs", "--stage", "production")


def test_a_person_predicts_whole_files_with_the_documented_policy_alone(
    here: Land, deployed: str, tmp_path: Path
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
    [text] = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    names = {"region": REGION, "account": ACCOUNT, "project": "churn", "bucket": BUCKET}
    for name, value in {**names, "stage": "production"}.items():
        text = text.replace(f"<{name}>", value)
    iam, trust = here.aws.client("iam"), {"Effect": "Allow", "Action": "sts:AssumeRole"}
    trusted = policy({**trust, "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}})
    iam.create_role(RoleName="analyst", AssumeRolePolicyDocument=trusted)
    iam.put_role_policy(RoleName="analyst", PolicyName="p", PolicyDocument=text)
    person = session(here, "analyst")
    header, *rows = (here.repo.root / "data" / "breast-cancer.csv").read_text().splitlines()
    bad = ",".join(["much", *rows[1].split(",")[1:]])
    lines = [f"id,{header}", *(f"{i:04},{row}" for i, row in enumerate([rows[0], bad, rows[2]]))]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    words = ["predict", str(tmp_path / "rows.csv"), str(tmp_path / "out.csv")]
    done = mlops_here(here.repo.root, *words, **person)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "2 of 3 rows predicted by version 1" in done.stdout
    assert "is left" not in done.stdout
    first, *predicted = (tmp_path / "out.csv").read_text().splitlines()
    assert first.startswith(f"id,{header},prediction,probability,probability_")
    assert [line.split(",")[0] for line in predicted] == ["0000", "0002"]
    [reason] = map(json.loads, (tmp_path / "out.errors.jsonl").read_text().splitlines())
    assert (reason["row"], reason["column"]) == (2, header.split(",")[0])
    assert "row 2: 'much' is not a number" in reason["error"]
    # And the same predictions as the endpoint's.
    answer = Job(here, here.repo, "production").mlops(
        "invoke", "production", str(tmp_path / "rows.csv"), code=2
    )
    assert "line 3 of rows.csv: 'much' is not a number" in answer.stderr
    (tmp_path / "rows.csv").write_text("\n".join([lines[0], lines[1], lines[3]]) + "\n")
    answer = Job(here, here.repo, "production").mlops(
        "invoke", "production", f"{tmp_path}/rows.csv"
    )
    for line, expected in zip(predicted, json.loads(answer.stdout)["predictions"], strict=True):
        label, probability, *_ = line.split(",")[-4:]
        assert (label, float(probability)) == (expected["prediction"], expected["probability"])
    # Nothing else: neither the other stage nor the endpoint nor what is beside the batches.
    refused(
        client("sagemaker-runtime", person).invoke_endpoint,
        EndpointName="churn-production",
        Body=b"",
    )
    refused(client("s3", person).list_objects_v2, Bucket=BUCKET, Prefix="churn/executions/")
    other = mlops_here(here.repo.root, *words, "--stage", "staging", **person)
    assert other.returncode == 2 and "AccessDenied" in other.stderr


KINDS: dict[str, dict[str, Any]] = {
    "real-time": {
        "EndpointKind": "real-time",
        "InstanceType": "ml.m5.large",
        "InstanceCount": 2,
        "MaxInstanceCount": 4,
        "DataCapturePercent": 100,
        "BakeSeconds": 60,
    },
    "asynchronous": {"EndpointKind": "asynchronous", "InstanceType": "ml.m5.large"},
    "batch": {"EndpointKind": "batch"},
}
ROWS = f"s3://{BUCKET}/churn/batch/staging"
NIGHTLY = {
    "Schedule": "cron(0 5 * * ? *)",
    "Input": f"{ROWS}/input/all/",
    "Output": f"{ROWS}/output/all/",
}


@pytest.mark.parametrize(
    "kind", [pytest.param(k, marks=[pytest.mark.long] * (k != "batch")) for k in KINDS]
)
def test_every_kind_of_stage_is_made_changed_and_deleted(
    here: Land, deployed: str, kind: str
) -> None:
    """With the second stack, which follows the first, and goes where nothing is wanted of it."""
    job, settings = Job(here, here.repo, "staging"), here.repo.root / "mlops.yaml"
    file = here.repo.root / "infra" / "staging.json"
    job.mlops("destroy", "staging", "--yes")
    before, schedules = settings.read_text(), here.aws.client("scheduler").list_schedules
    stage = file.read_text()
    if kind != "batch":
        here.repo.configure(monitoring={"stages": ["staging"]})
    here.repo.stage("staging", Parameters=KINDS[kind], Batch=NIGHTLY)
    job.mlops("deploy", "staging", "--model-package-arn", deployed)
    if kind == "real-time":
        variables = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        done = mlops_here(here.repo.root, "monitor", "staging", "--run", **variables)
        assert done.returncode == 0 and "no requests" in done.stdout, done.stdout + done.stderr
    settings.write_text(before)
    names = [row["Name"] for row in schedules()["Schedules"]]
    checks = [] if kind == "batch" else ["churn-staging-monitor"]
    assert names == ["churn-staging-batch", *checks]
    job.mlops("smoke", "staging")
    parameters = {**KINDS[kind], "ErrorAlarmThreshold": 0.2}
    here.repo.stage("staging", Parameters=parameters, Batch=NIGHTLY)
    job.mlops("deploy", "staging", "--model-package-arn", deployed)
    assert [row["Name"] for row in schedules()["Schedules"]] == ["churn-staging-batch"]
    state = "batch only" if kind == "batch" else "InService"
    assert shown(here, "staging")["state"] == state
    if kind == "batch":
        here.repo.stage("staging", Parameters=parameters, Batch=None)
        job.mlops("deploy", "staging", "--model-package-arn", deployed)
        assert schedules()["Schedules"] == []
    job.mlops("destroy", "staging", "--yes")
    file.write_text(stage)


@pytest.mark.long
def test_a_version_is_rolled_back_and_everything_is_deleted(here: Land, deployed: str) -> None:
    job = Job(here, here.repo, "production")
    training = Job(here, here.repo)
    training.mlops("run", "--set", "num_boost_round=60", "--set", "GateTolerance=1")
    newest = str(json.loads(job.mlops("models", "--json").stdout)[0]["arn"])
    assert newest != deployed
    here.aws.sagemaker.update_model_package(ModelPackageArn=newest, ModelApprovalStatus="Approved")
    job.mlops("deploy", "production", "--model-package-arn", newest)
    job.mlops("rollback", "production", "--yes")
    assert shown(here, "production")["version"] == 1
    job.mlops("destroy", "production", "--yes")


# One repo and another, the name of one being the beginning of the other's.


@pytest.fixture(scope="module")
def others(here: Land, approved: str) -> Iterator[Land]:
    """Return the repo churn-eu of the same owner, with an approved version and staging deployed."""
    found = here.neighbour("churn-eu")
    found.act()
    Job(found, found.repo).mlops("run")
    arn = json.loads(Job(found, found.repo).mlops("models", "--json").stdout)[0]["arn"]
    found.aws.sagemaker.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    Job(found, found.repo, "staging").mlops("deploy", "staging", "--model-package-arn", arn)
    yield found


def session(here: Land, role: str) -> dict[str, str]:
    """Return the variables of a process with the rights of any role, however it is taken."""
    from sm_mlops.sandbox import grants

    made = grants.session(f"arn:aws:iam::{ACCOUNT}:role/{role}", "test", REGION)
    return {**made, "AWS_ENDPOINT_URL": here.server.url}


def serving_role(land: Land, stack: str) -> str:
    """Return the name and path of the role that an endpoint works with."""
    rows = land.aws.client("cloudformation").list_stack_resources(StackName=stack)
    name = next(
        row["PhysicalResourceId"]
        for row in rows["StackResourceSummaries"]
        if row["LogicalResourceId"] == "ExecutionRole"
    )
    return str(land.aws.client("iam").get_role(RoleName=name)["Role"]["Arn"]).partition("role/")[2]


def refused(call: Any, **request: Any) -> str:
    """Return the words of a denial; fails when the call is allowed or meets another error."""
    with pytest.raises(ClientError) as caught:
        call(**request)
    error = caught.value.response["Error"]
    assert error["Code"] in ("AccessDenied", "AccessDeniedException", "403"), error
    return str(error["Message"])


def first_key(land: Land, prefix: str, end: str) -> str:
    pages = land.aws.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return next(
        str(row["Key"]) for page in pages for row in page["Contents"] if row["Key"].endswith(end)
    )


@pytest.mark.long
@pytest.mark.parametrize(("one", "two"), [("churn", "churn-eu"), ("churn-eu", "churn")])
def test_no_role_of_a_repo_reaches_another_repo(
    here: Land, others: Land, deployed: str, one: str, two: str
) -> None:
    mine = here if one == "churn" else others
    theirs = others if one == "churn" else here
    if not any(e["EndpointName"] == "churn-staging" for e in endpoints(here)):
        here.repo.stage("staging", Parameters={"EndpointKind": "serverless"})
        Job(here, here.repo, "staging").mlops("deploy", "staging", "--model-package-arn", deployed)
    model = first_key(theirs, f"{two}/executions/", "model.tar.gz")
    package = theirs.aws.sagemaker.list_model_packages(ModelPackageGroupName=two)[
        "ModelPackageSummaryList"
    ][0]["ModelPackageArn"]
    workflows = [f"{one}-github-{kind}" for kind in ("train", "staging", "production")]
    for role in (*workflows, f"{one}-pipeline", serving_role(mine, f"{one}-staging")):
        variables = session(here, role)
        s3, sagemaker = client("s3", variables), client("sagemaker", variables)
        # It is this role and no stranger: its own things it reaches.
        assert s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{one}/")["KeyCount"]
        words = refused(s3.get_object, Bucket=BUCKET, Key=model)
        assert "is not authorized to perform: s3:GetObject" in words
        assert f"assumed-role/{role.rpartition('/')[2]}/" in words and model in words
        refused(s3.put_object, Bucket=BUCKET, Key=f"{two}/x", Body=b"")
        refused(s3.list_objects_v2, Bucket=BUCKET, Prefix=f"{two}/")
        refused(s3.list_objects_v2, Bucket=BUCKET)
        refused(sagemaker.start_pipeline_execution, PipelineName=two)
        refused(sagemaker.update_pipeline, PipelineName=two, PipelineDescription="x")
        refused(sagemaker.describe_pipeline, PipelineName=two)
        approval = {"ModelPackageArn": package, "ModelApprovalStatus": "Approved"}
        assert "sagemaker:UpdateModelPackage" in refused(sagemaker.update_model_package, **approval)
        refused(sagemaker.describe_model_package, ModelPackageName=package)
        name = f"{two}-staging"
        refused(sagemaker.update_endpoint, EndpointName=name, EndpointConfigName="c")
        refused(sagemaker.delete_endpoint, EndpointName=name)
        runtime = client("sagemaker-runtime", variables)
        refused(runtime.invoke_endpoint, EndpointName=name, Body=b"")


def endpoints(land: Land) -> list[dict[str, Any]]:
    return list(land.aws.sagemaker.list_endpoints()["Endpoints"])


@pytest.mark.long
def test_a_workflow_deploys_nothing_over_another_repo(
    here: Land, others: Land, deployed: str
) -> None:
    job = Job(here, here.repo, "staging")
    cloudformation, sagemaker = job.client("cloudformation"), job.client("sagemaker")
    stack = "churn-eu-staging"
    template = '{"Resources": {"A": {"Type": "AWS::SNS::Topic"}}}'
    change = {"StackName": stack, "ChangeSetName": "x", "TemplateBody": template}
    assert f"stack/{stack}/" in refused(cloudformation.create_change_set, **change)
    refused(cloudformation.delete_stack, StackName=stack)
    refused(cloudformation.describe_stacks, StackName=stack)
    # Only its tag distinguishes what CloudFormation has named for the other repo.
    config = others.aws.sagemaker.describe_endpoint(EndpointName=stack)["EndpointConfigName"]
    words = refused(
        sagemaker.update_endpoint, EndpointName="churn-staging", EndpointConfigName=config
    )
    assert f"endpoint-config/{config}" in words
    refused(sagemaker.delete_endpoint_config, EndpointConfigName=config)
    tags = [{"Key": "project", "Value": "churn"}]
    arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:endpoint-config/{config}"
    refused(sagemaker.add_tags, ResourceArn=arn, Tags=tags)
    # Nor does what nobody has tagged become its own.
    others.aws.sagemaker.delete_tags(ResourceArn=arn, TagKeys=["project"])
    refused(sagemaker.add_tags, ResourceArn=arn, Tags=tags)
    theirs = [{"Key": "project", "Value": "churn-eu"}]
    others.aws.sagemaker.add_tags(ResourceArn=arn, Tags=theirs)
    role = f"arn:aws:iam::{ACCOUNT}:role/{serving_role(others, stack)}"
    container = {"Image": "i", "ModelDataUrl": "s3://b/m"}
    words = refused(
        sagemaker.create_model,
        ModelName="stolen",
        PrimaryContainer=container,
        ExecutionRoleArn=role,
        Tags=tags,
    )
    assert "iam:PassRole" in words


def test_a_stage_leaves_the_other_one_alone(here: Land, deployed: str) -> None:
    job = Job(here, here.repo, "staging")
    refused(job.client("cloudformation").delete_stack, StackName="churn-production")
    refused(job.client("sagemaker").delete_endpoint, EndpointName="churn-production")
    role = f"arn:aws:iam::{ACCOUNT}:role/churn-github-production"
    refused(job.client("sts").assume_role, RoleArn=role, RoleSessionName="session")
    # The token of a job is for one of them, whatever role the job asks for.
    with pytest.raises(Exception, match="Not authorized to perform sts:AssumeRoleWithWebIdentity"):
        here.server.integrations.workflows.environment(
            f"{OWNER}/churn", environment="staging", workflow="deploy.yml", role_arn=role
        )


def test_no_role_of_a_repo_approves(here: Land, deployed: str) -> None:
    Job(here, here.repo, "production").mlops("approve", "1", "--comment", "mine", code=2)
    for role in (
        *(f"churn-github-{kind}" for kind in ("train", "staging", "production")),
        *("churn-pipeline", serving_role(here, "churn-staging")),
    ):
        sagemaker = client("sagemaker", session(here, role))
        approved = {"ModelApprovalStatus": "Approved"}
        words = refused(sagemaker.update_model_package, ModelPackageArn=deployed, **approved)
        assert "sagemaker:UpdateModelPackage" in words
        words = refused(sagemaker.create_model_package, ModelPackageGroupName="churn", **approved)
        assert "sagemaker:CreateModelPackage" in words
        # What deploys cannot be exchanged after somebody has approved it, either.
        if role != "churn-pipeline":
            model = first_key(here, "churn/executions/", "model.tar.gz")
            s3 = client("s3", session(here, role))
            refused(s3.put_object, Bucket=BUCKET, Key=model, Body=b"")


TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "sagemaker.amazonaws.com"},
    "Action": "sts:AssumeRole",
}
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def test_no_role_of_a_repo_widens_itself(here: Land, deployed: str) -> None:
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/sm-mlops-boundary-{REGION}"
    path, trust = "/sm-mlops/churn/staging/", policy(TRUST)
    tags = [{"Key": "project", "Value": "churn"}]
    made = {"RoleName": "wide", "Path": path, "AssumeRolePolicyDocument": trust}
    for role in ("churn-github-train", "churn-github-staging", "churn-pipeline"):
        iam = client("iam", session(here, role))
        document = policy(EVERYTHING)
        refused(iam.put_role_policy, RoleName=role, PolicyName="x", PolicyDocument=document)
        refused(iam.delete_role_permissions_boundary, RoleName=role)
        refused(iam.tag_role, RoleName=role, Tags=[{"Key": "project", "Value": "churn-eu"}])
        refused(iam.update_assume_role_policy, RoleName=role, PolicyDocument=trust)
        refused(iam.create_policy_version, PolicyArn=boundary, PolicyDocument=document)
        refused(iam.create_user, UserName="wide")
        # A role without the boundary, of another project, or elsewhere.
        refused(iam.create_role, **made, Tags=tags)
        other = [{"Key": "project", "Value": "churn-eu"}]
        refused(iam.create_role, **made, PermissionsBoundary=boundary, Tags=other)
        for elsewhere in ("/", "/sm-mlops/churn/production/", "/sm-mlops/churn-eu/staging/"):
            given = {**made, "Path": elsewhere, "PermissionsBoundary": boundary, "Tags": tags}
            refused(iam.create_role, **given)
    # What it may make is held by the boundary, whatever policy it is given.
    iam = client("iam", session(here, "churn-github-staging"))
    iam.create_role(**made, PermissionsBoundary=boundary, Tags=tags)
    iam.put_role_policy(RoleName="wide", PolicyName="x", PolicyDocument=policy(EVERYTHING))
    wide = session(here, "sm-mlops/churn/staging/wide")
    assert client("s3", wide).list_objects_v2(Bucket=BUCKET, Prefix="churn/")["KeyCount"]
    words = refused(client("s3", wide).list_objects_v2, Bucket=BUCKET, Prefix="churn-eu/")
    assert words.endswith("because no permissions boundary allows the s3:ListBucket action")
    refused(
        client("sts", wide).assume_role,
        RoleArn=f"arn:aws:iam::{ACCOUNT}:role/churn-github-staging",
        RoleSessionName="session",
    )
    refused(iam.delete_role_permissions_boundary, RoleName="wide")
    iam.delete_role_policy(RoleName="wide", PolicyName="x")
    iam.delete_role(RoleName="wide")


def test_a_session_that_claims_another_project_reaches_nothing(
    here: Land, others: Land, deployed: str
) -> None:
    """A repo lets whoever it likes take a role that it makes, with tags of their choice."""
    boundary = f"arn:aws:iam::{ACCOUNT}:policy/sm-mlops-boundary-{REGION}"
    anybody = {**TRUST, "Principal": {"AWS": "*"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    iam = client("iam", session(here, "churn-github-staging"))
    iam.create_role(
        RoleName="door",
        Path="/sm-mlops/churn/staging/",
        AssumeRolePolicyDocument=policy(anybody),
        PermissionsBoundary=boundary,
        Tags=[{"Key": "project", "Value": "churn"}],
    )
    iam.put_role_policy(RoleName="door", PolicyName="x", PolicyDocument=policy(EVERYTHING))
    model = first_key(others, "churn-eu/executions/", "model.tar.gz")
    for project in ("churn-eu", "platform", "churn"):
        taken = here.aws.client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/sm-mlops/churn/staging/door",
            RoleSessionName="session",
            Tags=[{"Key": "project", "Value": project}],
        )["Credentials"]
        s3 = boto3.client(
            "s3",
            region_name=REGION,
            endpoint_url=here.server.url,
            aws_access_key_id=taken["AccessKeyId"],
            aws_secret_access_key=taken["SecretAccessKey"],
            aws_session_token=taken["SessionToken"],
        )
        if project == "churn":
            assert s3.list_objects_v2(Bucket=BUCKET, Prefix="churn/")["KeyCount"]
            continue
        words = refused(s3.get_object, Bucket=BUCKET, Key=model)
        assert words.endswith("with an explicit deny in a permissions boundary")
        refused(s3.put_object, Bucket=BUCKET, Key=f"{project}/x", Body=b"")
        refused(s3.list_objects_v2, Bucket=BUCKET, Prefix=f"{project}/")
    iam.delete_role_policy(RoleName="door", PolicyName="x")
    iam.delete_role(RoleName="door")


def test_a_pipeline_stops_no_job_of_another_repo(here: Land, others: Land, trained: int) -> None:
    execution = others.aws.sagemaker.list_pipeline_executions(PipelineName="churn-eu")[
        "PipelineExecutionSummaries"
    ][0]["PipelineExecutionArn"]
    steps = others.aws.sagemaker.list_pipeline_execution_steps(PipelineExecutionArn=execution)
    job = next(
        row["Metadata"]["TrainingJob"]["Arn"]
        for row in steps["PipelineExecutionSteps"]
        if "TrainingJob" in row.get("Metadata", {})
    ).rpartition("/")[2]
    mine = client("sagemaker", session(here, "churn-pipeline"))
    theirs = client("sagemaker", session(here, "churn-eu-pipeline"))
    refused(mine.stop_training_job, TrainingJobName=job)
    refused(mine.describe_training_job, TrainingJobName=job)
    name = theirs.describe_training_job(TrainingJobName=job)["TrainingJobName"]
    assert name.lower() == job


def test_only_the_trigger_reads_the_credential(here: Land) -> None:
    for role in ("churn-github-train", "churn-github-production", "churn-pipeline"):
        secrets = client("secretsmanager", session(here, role))
        refused(secrets.get_secret_value, SecretId="sm-mlops/github")
    # Not even the administrator of the account.
    words = refused(here.aws.client("secretsmanager").get_secret_value, SecretId="sm-mlops/github")
    assert words.endswith("with an explicit deny in a resource-based policy")


def granted(here: Land, role: str) -> set[str]:
    """Return the actions that the role's own policies allow."""
    iam, found = here.aws.client("iam"), set()
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document: Any = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                found |= set(listed(statement["Action"]))
    return found


def test_each_role_is_granted_what_its_life_takes_and_what_is_explained(
    here: Land,
    trained: int,
    deployed: str,
    record_property: Callable[[str, object], None],
) -> None:
    beyond = {action for actions in BEYOND.values() for action in actions.split()}
    table = []
    for role in ROLES:
        unused = granted(here, role) - USED[role]
        table.append(f"{role}: {len(USED[role])} actions used, {len(unused)} more are granted")
        assert unused <= beyond, (role, sorted(unused - beyond))
    record_property("shown", "\n".join(table))
