"""What the roles of model repos do, as requests that IAM decides about, and what nobody may."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from infra_case import ACCOUNT, REGION
from platform_case import ASSETS, BOUNDARY, BUCKET, GITHUB_BOUNDARY, TRAIN_BOUNDARY

# What watch.yml makes of a stage's schedules.
SCHEDULES = {"staging": ("batch", "monitor"), "production": ("batch", "monitor", "retrain")}


@dataclass(frozen=True)
class Call:
    """One request: the action, the resource's ARN and what IAM knows of both."""

    action: str
    resource: str
    context: dict[str, str | list[str]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.action} {self.resource.split(':', 5)[-1]}"


def arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{resource}"


def role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{name}"


def calls(service: str, names: str, *resources: str, **context: str | list[str]) -> Iterator[Call]:
    """Return each action with each resource; `a_b__c` in a keyword is `a:b/c`."""
    facts = {key.replace("__", "/").replace("_", ":", 1): item for key, item in context.items()}
    for name in names.split():
        for resource in resources:
            yield Call(f"{service}:{name}", resource, facts)


def objects(project: str) -> Iterator[Call]:
    """Return what training reads and uploads below a project's prefix."""
    place = f"arn:aws:s3:::{BUCKET}/{project}"
    yield from calls("s3", "GetObject PutObject", f"{place}/data/x.csv", f"{place}/code/1/a.py")
    yield from calls("s3", "GetObject", f"{place}/executions/1/model.tar.gz")
    for prefix in (f"{project}/", f"{project}/executions/"):
        yield from calls("s3", "ListBucket", f"arn:aws:s3:::{BUCKET}", s3_prefix=prefix)


def training(project: str) -> Iterator[Call]:
    """Return what `mlops run`, `follow` and `report` do on AWS."""
    yield from objects(project)
    for name in pipelines(project):
        owner, execution = arn("sagemaker", f"pipeline/{name}"), "execution/0a1b2c"
        yield from calls(
            "sagemaker",
            "CreatePipeline UpdatePipeline DescribePipeline StartPipelineExecution"
            " ListPipelineExecutions",
            owner,
        )
        yield from calls(
            "sagemaker",
            "DescribePipelineExecution ListPipelineExecutionSteps StopPipelineExecution"
            " DescribePipelineDefinitionForExecution ListPipelineParametersForExecution",
            f"{owner}/{execution}",
        )
    yield from calls("servicequotas", "ListServiceQuotas ListAWSDefaultServiceQuotas", "*")
    passed = {"iam_PassedToService": "sagemaker.amazonaws.com"}
    yield from calls("iam", "PassRole", role(f"{project}-pipeline"), **passed)
    yield from registry(project)
    job = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:training-job/pipelines-0a1b2c-Train-xyz"
    yield from calls("sagemaker", "DescribeTrainingJob", job, **executed(project))
    job = job.replace("training", "processing")
    for name in pipelines(project):
        yield from calls("sagemaker", "DescribeProcessingJob", job, **executed(name))


def pipelines(project: str) -> tuple[str, str]:
    """Return the pipelines of a project, which train and check its model."""
    return project, f"{project}-monitor"


def executed(pipeline: str) -> dict[str, str]:
    """Return the tag that SageMaker gives a pipeline's jobs, as `calls` takes it."""
    execution = arn("sagemaker", f"pipeline/{pipeline}/execution/0a1b2c")
    return {"aws_ResourceTag__sagemaker:pipeline-execution-arn": execution}


def registry(project: str) -> Iterator[Call]:
    version = arn("sagemaker", f"model-package/{project}/3")
    yield from calls("sagemaker", "DescribeModelPackage ListModelPackages", version)
    group = arn("sagemaker", f"model-package-group/{project}")
    yield from calls("sagemaker", "DescribeModelPackageGroup", group)


def deploying(project: str, stage: str = "staging") -> Iterator[Call]:
    """Return what `mlops deploy`, `smoke` and `status` do, and CloudFormation for them."""
    asked, limited = {"aws_RequestTag__project": project}, {"iam_PermissionsBoundary": BOUNDARY}
    name = f"{project}-{stage}"
    yield from registry(project)
    both = [arn("cloudformation", f"stack/{one}/0a1b2c") for one in (name, f"{name}-watch")]
    yield from calls(
        "cloudformation",
        "CreateChangeSet DescribeChangeSet DescribeEvents ExecuteChangeSet DeleteChangeSet"
        " ListChangeSets DescribeStacks DescribeStackEvents ListStackResources DeleteStack"
        " ContinueUpdateRollback",
        *both,
    )
    for action in ("CreateChangeSet", "ExecuteChangeSet"):
        by = {"cloudformation_CreateAction": action}
        yield from calls("cloudformation", "TagResource UntagResource", *both, **asked, **by)
    schedules = [f"schedule/default/{name}-{kind}" for kind in SCHEDULES[stage]]
    yield from calls(
        "scheduler",
        "CreateSchedule GetSchedule UpdateSchedule DeleteSchedule",
        *(arn("scheduler", one) for one in schedules),
    )
    endpoint = arn("sagemaker", f"endpoint/{name}")
    yield from calls(
        "sagemaker",
        "CreateEndpoint UpdateEndpoint DeleteEndpoint AddTags DeleteTags",
        endpoint,
        **asked,
    )
    yield from calls(
        "sagemaker",
        "DescribeEndpoint UpdateEndpointWeightsAndCapacities InvokeEndpoint InvokeEndpointAsync"
        " ListTags",
        endpoint,
    )
    yield from calls(
        "cloudwatch",
        "PutMetricAlarm DeleteAlarms TagResource UntagResource ListTagsForResource",
        *(
            arn("cloudwatch", f"alarm:{name}-{alarm}")
            for alarm in ("errors", "latency", "invocations", "wake-up", "drift")
        ),
        arn("cloudwatch", f"alarm:TargetTracking-endpoint/{name}/variant/AllTraffic-Low-1"),
    )
    yield from calls("logs", "FilterLogEvents", arn("logs", log_group(name)))
    yield from calls("logs", "TagResource", arn("logs", log_group(name).removesuffix(":*")))
    yield from models(project)
    own = role(f"sm-mlops/{project}/{stage}/{name}-ExecutionRole-1A2B3C")
    yield from calls("iam", "CreateRole", own, **asked, **limited)
    yield from calls(
        "iam",
        "PutRolePolicy DeleteRolePolicy DeleteRole UpdateAssumeRolePolicy UpdateRole",
        own,
        **limited,
    )
    yield from calls("iam", "TagRole", own, **asked)
    yield from calls("iam", "TagRole", own, aws_TagKeys=["commit", "model-version"])
    tagged = {"aws_ResourceTag__project": project}
    yield from calls("iam", "UntagRole", own, **tagged, aws_TagKeys=["team"])
    yield from calls(
        "iam", "GetRole GetRolePolicy ListRolePolicies ListAttachedRolePolicies ListRoleTags", own
    )
    for service in ("sagemaker", "scheduler"):
        passed = {"iam_PassedToService": f"{service}.amazonaws.com"}
        yield from calls("iam", "PassRole", own, **passed)
    place = f"arn:aws:s3:::{BUCKET}/{project}"
    yield from calls("s3", "GetObject", f"{place}/executions/1/evaluate/sample-payload.tar.gz")
    yield from calls("s3", "GetObject PutObject", f"{place}/async/{stage}/input/1")


def log_group(name: str) -> str:
    return f"log-group:/aws/sagemaker/Endpoints/{name}:*"


def models(project: str) -> Iterator[Call]:
    """Return what CloudFormation does with models and endpoint configurations."""
    tagged, asked = {"aws_ResourceTag__project": project}, {"aws_RequestTag__project": project}
    both = {**tagged, **asked}
    model, config = arn("sagemaker", "model/model-1"), arn("sagemaker", "endpoint-config/config-1")
    for kind, made in (("Model", model), ("EndpointConfig", config)):
        yield from calls("sagemaker", f"Create{kind}", made, **asked)
        new = {"sagemaker_TaggingAction": f"Create{kind}"}
        yield from calls("sagemaker", "AddTags", made, **asked, **new)
        yield from calls("sagemaker", f"Describe{kind} Delete{kind} ListTags", made, **tagged)
        yield from calls("sagemaker", "AddTags", made, **both)
        yield from calls("sagemaker", "AddTags", made, **tagged, aws_TagKeys=["commit"])
        yield from calls("sagemaker", "DeleteTags", made, **tagged, aws_TagKeys=["commit"])
    # Tags of the request, those of the endpoint, come along.
    yield from calls("sagemaker", "CreateEndpoint UpdateEndpoint", config, **both)
    version = arn("sagemaker", f"model-package/{project}/3")
    yield from calls("sagemaker", "CreateModel", version, **asked)


def jobs(project: str) -> Iterator[Call]:
    """Return what a pipeline does for its jobs, and they for themselves."""
    yield from objects(project)
    model = f"arn:aws:s3:::{BUCKET}/{project}/executions/1/model.tar.gz"
    yield from calls("s3", "PutObject", model)
    for kind in ("Processing", "Training"):
        job = arn("sagemaker", f"{kind.lower()}-job/pipelines-0a1b2c-Step-xyz")
        yield from calls("sagemaker", f"Create{kind}Job", job)
        for name in pipelines(project):
            yield from calls("sagemaker", f"Describe{kind}Job Stop{kind}Job", job, **executed(name))
        action = {"sagemaker_TaggingAction": f"Create{kind}Job"}
        yield from calls("sagemaker", "AddTags", job, **action)
        group = f"log-group:/aws/sagemaker/{kind}Jobs"
        yield from calls("logs", "CreateLogGroup", arn("logs", group))
        yield from calls("logs", "PutLogEvents", arn("logs", f"{group}:log-stream:pipelines-0a"))
        namespace = {"cloudwatch_namespace": f"/aws/sagemaker/{kind}Jobs"}
        yield from calls("cloudwatch", "PutMetricData", "*", **namespace)
    place = f"arn:aws:s3:::{BUCKET}/{project}"
    for folder in ("capture/production/version-3", "labels/production", "async/production"):
        yield from calls("s3", "GetObject", f"{place}/{folder}/1")
    yield from calls("s3", "PutObject", f"{place}/monitor/production/2026-11-28T06Z/result.json")
    yield from calls("cloudwatch", "PutMetricData", "*", cloudwatch_namespace="sm-mlops")
    version = arn("sagemaker", f"model-package/{project}/4")
    yield from calls("sagemaker", "CreateModelPackage DescribeModelPackage", version)
    yield from calls(
        "sagemaker", "CreateModelPackage", arn("sagemaker", f"model-package-group/{project}")
    )
    passed = {"iam_PassedToService": "sagemaker.amazonaws.com"}
    yield from calls("iam", "PassRole", role(f"{project}-pipeline"), **passed)
    yield from images()


def images() -> Iterator[Call]:
    yield from calls("ecr", "GetAuthorizationToken", "*")
    image = f"arn:aws:ecr:{REGION}:683313688378:repository/sagemaker-xgboost"
    yield from calls("ecr", "BatchGetImage GetDownloadUrlForLayer", image)


def answering(project: str) -> Iterator[Call]:
    """Return what an endpoint's role is for."""
    place = f"arn:aws:s3:::{BUCKET}/{project}"
    yield from calls("s3", "GetObject", f"{place}/executions/1/model.tar.gz")
    yield from calls("s3", "GetObject", f"{place}/async/staging/input/1")
    yield from calls("s3", "PutObject", f"{place}/async/staging/output/1.out")
    yield from calls("s3", "GetObject", f"{place}/batch/staging/input/1/part-1.jsonl.gz")
    yield from calls("s3", "PutObject", f"{place}/batch/staging/output/1/part-1.jsonl.gz.out")
    stream = f"log-group:/aws/sagemaker/TransformJobs:log-stream:{project}-batch-1/data-log"
    yield from calls("logs", "CreateLogStream PutLogEvents", arn("logs", stream))
    stream = f"log-group:/aws/sagemaker/Endpoints/{project}-staging:log-stream:AllTraffic/i-1"
    yield from calls("logs", "CreateLogStream PutLogEvents", arn("logs", stream))
    namespace = {"cloudwatch_namespace": "/aws/sagemaker/Endpoints"}
    yield from calls("cloudwatch", "PutMetricData", "*", **namespace)
    alarm = arn("cloudwatch", f"alarm:{project}-staging-errors")
    yield from calls("cloudwatch", "DescribeAlarms", alarm)
    yield from images()


def scheduled(project: str) -> Iterator[Call]:
    """Return what the schedules of a stage start."""
    monitor = arn("sagemaker", f"pipeline/{project}-monitor")
    yield from calls("sagemaker", "StartPipelineExecution", monitor)
    yield from calls("lambda", "InvokeFunction", arn("lambda", "function:sm-mlops-retrain"))
    job = arn("sagemaker", f"transform-job/{project}-batch-0a1b2c")
    asked = {"aws_RequestTag__project": project}
    for model in ("Model-1a2b3c", "model-1a2b3c"):  # As the request names it, and as SageMaker.
        named = {"sagemaker_ModelArn": arn("sagemaker", f"model/{model}")}
        yield from calls("sagemaker", "CreateTransformJob", job, **asked, **named)
    tagging = {"sagemaker_TaggingAction": "CreateTransformJob"}
    yield from calls("sagemaker", "AddTags", job, **asked, **tagging)


def deciding(project: str) -> Iterator[Call]:
    """Return what only people do: no role of a repo, not even for its own project."""
    version = arn("sagemaker", f"model-package/{project}/3")
    group = arn("sagemaker", f"model-package-group/{project}")
    status = {"sagemaker_ModelApprovalStatus": "Approved"}
    yield from calls("sagemaker", "CreateModelPackage", version, group, **status)
    yield from calls("sagemaker", "UpdateModelPackage", version, **status)
    yield from calls("sagemaker", "UpdateModelPackage DeleteModelPackage", version)
    yield from calls(
        "sagemaker",
        "DeleteModelPackageGroup PutModelPackageGroupPolicy DeleteModelPackageGroupPolicy",
        arn("sagemaker", f"model-package-group/{project}"),
    )
    yield from calls("sagemaker", "DeletePipeline", arn("sagemaker", f"pipeline/{project}"))
    place = f"arn:aws:s3:::{BUCKET}"
    yield from calls("s3", "DeleteObject DeleteObjectVersion", f"{place}/{project}/data/x.csv")
    yield from calls("s3", "PutBucketPolicy DeleteBucketPolicy DeleteBucket", place)


def attempts() -> Iterator[Call]:
    """Ways to more rights, tried by the roles of project churn."""
    own = role("sm-mlops/churn/staging/mine")
    mine = {"aws_RequestTag__project": "churn"}
    # A role without the boundary, with a wider one, for another project, or in another place.
    yield from calls("iam", "CreateRole", own, **mine)
    yield from calls("iam", "CreateRole", own, iam_PermissionsBoundary=BOUNDARY)
    for wider in (GITHUB_BOUNDARY, TRAIN_BOUNDARY):
        yield from calls("iam", "CreateRole", own, **mine, iam_PermissionsBoundary=wider)
    admin = "arn:aws:iam::aws:policy/AdministratorAccess"
    yield from calls("iam", "CreateRole", own, **mine, iam_PermissionsBoundary=admin)
    limited = {"iam_PermissionsBoundary": BOUNDARY}
    yield from calls("iam", "CreateRole", own, aws_RequestTag__project="fraud", **limited)
    for place in (
        *("sm-mlops/fraud/staging/x", "sm-mlops/churn-eu/staging/x", "sm-mlops/churn/x"),
        *("churn-admin", "fraud-pipeline"),
    ):
        yield from calls("iam", "CreateRole PutRolePolicy", role(place), **mine, **limited)
    # Policies of others and of itself, and the boundary taken away.
    for other in (
        *(
            "churn-github-train",
            "churn-github-staging",
            "churn-github-production",
            "churn-pipeline",
        ),
        *("fraud-github-train", f"sm-mlops-launch-{REGION}"),
    ):
        yield from calls(
            "iam",
            "PutRolePolicy UpdateAssumeRolePolicy TagRole UntagRole DeleteRole"
            " PutRolePermissionsBoundary DeleteRolePermissionsBoundary",
            role(other),
            **mine,
            **limited,
        )
    yield from calls(
        "iam", "PutRolePolicy DeleteRolePolicy UpdateAssumeRolePolicy UpdateRole DeleteRole", own
    )
    yield from calls("iam", "PutRolePermissionsBoundary", own, iam_PermissionsBoundary=admin)
    yield from calls("iam", "DeleteRolePermissionsBoundary", own, **limited)
    yield from calls("iam", "AttachRolePolicy", own, **limited, iam_PolicyARN=admin)
    for policy in (BOUNDARY, GITHUB_BOUNDARY, TRAIN_BOUNDARY):
        yield from calls("iam", "CreatePolicyVersion SetDefaultPolicyVersion DeletePolicy", policy)
    yield from calls("iam", "CreatePolicy", f"arn:aws:iam::{ACCOUNT}:policy/mine")
    # The tag that the boundary goes by.
    yield from calls(
        "iam", "TagRole", own, aws_RequestTag__project="fraud", aws_TagKeys=["project"]
    )
    yield from calls("iam", "UntagRole", own, aws_TagKeys=["project"])
    yield from calls("iam", "UntagRole", own, aws_TagKeys=["stage", "project"])
    # Users and keys.
    user = f"arn:aws:iam::{ACCOUNT}:user/sm-mlops/churn-github-staging"
    yield from calls(
        "iam", "CreateUser CreateAccessKey AttachUserPolicy PutUserPolicy", user, **limited
    )
    yield from calls(
        "iam", "CreateOpenIDConnectProvider", f"arn:aws:iam::{ACCOUNT}:oidc-provider/x"
    )
    # Roles handed to others, and taken.
    passing = {"iam_PassedToService": "sagemaker.amazonaws.com"}
    for other in (
        "fraud-pipeline",
        "churn-eu-pipeline",
        "sm-mlops/fraud/staging/x",
        "admin",
        "TriggerRole",
    ):
        yield from calls("iam", "PassRole", role(other), **passing)
    for service in ("lambda", "ec2", "cloudformation", "ecs-tasks"):
        handed = {"iam_PassedToService": f"{service}.amazonaws.com"}
        yield from calls("iam", "PassRole", own, role("churn-pipeline"), **handed)
    for other in (
        *("fraud-github-staging", "churn-eu-github-staging", "churn-github-production"),
        *(f"sm-mlops-launch-{REGION}", "admin"),
    ):
        yield from calls("sts", "AssumeRole", role(other), aws_ResourceAccount=ACCOUNT)
    # What is another's, made one's own by a tag, or served as one's own.
    theirs = {"aws_ResourceTag__project": "fraud"}
    for kind in ("model/model-9", "endpoint-config/config-9"):
        resource = arn("sagemaker", kind)
        yield from calls("sagemaker", "AddTags", resource, **mine, **theirs)
        yield from calls("sagemaker", "DeleteTags", resource, aws_TagKeys=["project"], **theirs)
        # Untagged, and made by nobody who is asking now.
        yield from calls("sagemaker", "AddTags", resource, **mine)
        yield from calls("sagemaker", "DeleteTags", resource, aws_TagKeys=["x"])
    config = arn("sagemaker", "endpoint-config/config-9")
    yield from calls("sagemaker", "UpdateEndpoint CreateEndpoint", config, **theirs)
    yield from calls("sagemaker", "UpdateEndpoint CreateEndpoint", config)
    yield from calls("sagemaker", "CreateModel", arn("sagemaker", "model/m"))
    for kind in ("Processing", "Training"):
        job = arn("sagemaker", f"{kind.lower()}-job/pipelines-9z-Step-xyz")
        yield from calls("sagemaker", f"Stop{kind}Job Describe{kind}Job", job)
        yield from calls(
            "sagemaker", f"Stop{kind}Job Describe{kind}Job", job, **executed("churn-eu")
        )
        yield from calls("sagemaker", "AddTags", job, **mine)
    for endpoint in ("fraud-staging", "churn-eu-staging", "churn-eu", "churn-staging-2", "churn"):
        resource = arn("sagemaker", f"endpoint/{endpoint}")
        yield from calls("sagemaker", "CreateEndpoint AddTags UpdateEndpoint", resource, **mine)
    # The platform.
    yield from calls("s3", "GetObject PutObject", f"arn:aws:s3:::{BUCKET}/{ASSETS}trigger.zip")
    yield from calls("s3", "ListBucket ListBucketVersions", f"arn:aws:s3:::{BUCKET}")
    yield from calls("s3", "ListBucket", f"arn:aws:s3:::{BUCKET}", s3_prefix="")
    yield from calls("s3", "ListBucket", f"arn:aws:s3:::{BUCKET}", s3_prefix="churn")
    for secret in ("github-AbCdEf", "churn/github-train-AbCdEf"):
        place = arn("secretsmanager", f"secret:sm-mlops/{secret}")
        yield from calls("secretsmanager", "GetSecretValue PutSecretValue", place)
    function = arn("lambda", "function:sm-mlops-trigger")
    yield from calls("lambda", "InvokeFunction UpdateFunctionCode", function)
    for stack in ("sm-mlops-platform", f"SC-{ACCOUNT}-pp-1", "churn-eu-staging", "churn-dev"):
        place = arn("cloudformation", f"stack/{stack}/1")
        yield from calls("cloudformation", "CreateChangeSet ExecuteChangeSet DeleteStack", place)
        tagging = {"cloudformation_CreateAction": "CreateChangeSet"}
        yield from calls("cloudformation", "TagResource UntagResource", place, **mine, **tagging)
    for tagging in ({}, {"cloudformation_CreateAction": "CreateStack"}):
        place = arn("cloudformation", "stack/churn-staging/1")
        yield from calls("cloudformation", "TagResource UntagResource", place, **mine, **tagging)
    yield from calls("events", "PutRule DeleteRule", arn("events", "rule/sm-mlops-approved"))
