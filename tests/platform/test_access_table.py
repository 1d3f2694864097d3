"""What each role of a project may do, in one table: who changes a policy changes it here, too.

A line has actions, resources and conditions; `^` marks what is denied, `=?` a key that may be
missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from iam_case import Document, listed
from infra_case import ACCOUNT, REGION
from platform_case import BUCKET, deployment, full_project

SIGNS = {"StringEqualsIfExists": "=?", "ForAllValues:StringNotEquals": "!="}
NAMES = {
    f"arn:aws:s3:::{BUCKET}": "bucket",
    f":{REGION}:{ACCOUNT}:": ":",
    f"::{ACCOUNT}:": ":",
    f":{REGION}:": ":",
    "arn:aws:": "",
    "log-group:/aws/sagemaker/": "",
}


def lines(policies: tuple[Document, ...]) -> Iterator[str]:
    """Yield a line for each statement."""
    for policy in policies:
        for statement in policy["Statement"]:
            services: dict[str, list[str]] = {}
            for action in listed(statement["Action"]):
                service, _, verb = action.partition(":")
                services.setdefault(service, []).append(verb)
            actions = " ".join(f"{name}:{','.join(verbs)}" for name, verbs in services.items())
            resources = [short(resource) for resource in listed(statement["Resource"])]
            keys = [
                f"{key}{SIGNS.get(operator, '=')}{','.join(map(str, listed(value)))}"
                for operator, entries in statement.get("Condition", {}).items()
                for key, value in entries.items()
            ]
            denied = "^" if statement["Effect"] == "Deny" else ""
            found = f"{denied}{actions} @ {' '.join(resources)}"
            yield f"{found} ? {' '.join(map(short, keys))}" if keys else found


def short(text: str) -> str:
    for long, name in NAMES.items():
        text = text.replace(long, name)
    return text


def wrapped(found: Iterator[str]) -> str:
    """Return lines no longer than a file's, the rest of each indented."""
    text = ""
    for line in found:
        at = 0
        for word in line.split():
            if at and at + len(word) + 1 > 96:
                text, at = f"{text}\n   ", 3
            text, at = f"{text}{' ' if at else ''}{word}", at + len(word) + 1
        text += "\n"
    return text


PIPELINE = """\
s3:AbortMultipartUpload,GetObject,PutObject @ bucket/churn/*
s3:ListBucket @ bucket ? s3:prefix=churn/*
s3:GetObject,ListBucket @ s3:::lake s3:::lake/churn/*
sagemaker:CreateProcessingJob,CreateTrainingJob @ sagemaker:processing-job/pipelines-*
    sagemaker:training-job/pipelines-*
sagemaker:DescribeProcessingJob,DescribeTrainingJob,StopProcessingJob,StopTrainingJob @
    sagemaker:processing-job/pipelines-* sagemaker:training-job/pipelines-* ?
    aws:ResourceTag/sagemaker:pipeline-execution-arn=sagemaker:pipeline/churn/execution/*,sagemaker:pipeline/churn-monitor/execution/*
^sagemaker:CreateModelPackage,UpdateModelPackage @ * ? sagemaker:ModelApprovalStatus=Approved
sagemaker:CreateModelPackage,DescribeModelPackage,DescribeModelPackageGroup @
    sagemaker:model-package-group/churn sagemaker:model-package/churn/*
sagemaker:AddTags @ sagemaker:processing-job/pipelines-* sagemaker:training-job/pipelines-*
    sagemaker:model-package/churn/* ?
    sagemaker:TaggingAction=CreateModelPackage,CreateProcessingJob,CreateTrainingJob
iam:PassRole @ iam:role/churn-pipeline ? iam:PassedToService=sagemaker.amazonaws.com
logs:CreateLogGroup,CreateLogStream,DescribeLogStreams,PutLogEvents @ logs:ProcessingJobs*
    logs:TrainingJobs*
cloudwatch:PutMetricData @ * ?
    cloudwatch:namespace=/aws/sagemaker/ProcessingJobs,/aws/sagemaker/TrainingJobs,sm-mlops
ecr:GetAuthorizationToken @ *
ecr:BatchCheckLayerAvailability,BatchGetImage,GetDownloadUrlForLayer @
    ecr:*:repository/sagemaker-xgboost ecr:*:repository/sagemaker-scikit-learn
kms:Decrypt,DescribeKey,GenerateDataKey,GenerateDataKeyWithoutPlaintext @
    kms:key/1234abcd-12ab-34cd-56ef-1234567890ab
kms:CreateGrant @ kms:key/1234abcd-12ab-34cd-56ef-1234567890ab ? kms:GrantIsForAWSResource=True
ec2:CreateNetworkInterface,DeleteNetworkInterface @ ec2:network-interface/*
    ec2:security-group/* ec2:*:subnet/*
ec2:CreateNetworkInterfacePermission,DeleteNetworkInterfacePermission @ ec2:network-interface/*
ec2:DescribeDhcpOptions,DescribeNetworkInterfaces,DescribeSecurityGroups,DescribeSubnets,DescribeVpcs
    @ *
"""
TRAIN = """\
s3:GetObject @ bucket/churn/*
s3:AbortMultipartUpload,PutObject @ bucket/churn/champion/* bucket/churn/code/*
    bucket/churn/data/*
s3:ListBucket @ bucket ? s3:prefix=churn/*
s3:ListBucket @ s3:::lake s3:::lake/churn/*
kms:Decrypt,DescribeKey,GenerateDataKey @ kms:key/1234abcd-12ab-34cd-56ef-1234567890ab
sagemaker:CreatePipeline,DescribePipeline,ListPipelineExecutions,StartPipelineExecution,UpdatePipeline
    @ sagemaker:pipeline/churn sagemaker:pipeline/churn-monitor
sagemaker:AddTags @ sagemaker:pipeline/churn sagemaker:pipeline/churn-monitor ?
    aws:RequestTag/project=churn
sagemaker:DescribePipelineDefinitionForExecution,DescribePipelineExecution,ListPipelineExecutionSteps,ListPipelineParametersForExecution,StopPipelineExecution
    @ sagemaker:pipeline/churn/execution/* sagemaker:pipeline/churn-monitor/execution/*
iam:PassRole @ iam:role/churn-pipeline ? iam:PassedToService=sagemaker.amazonaws.com
sagemaker:DescribeModelPackage,DescribeModelPackageGroup,ListModelPackages @
    sagemaker:model-package-group/churn sagemaker:model-package/churn/*
^sagemaker:CreateModelPackage,UpdateModelPackage @ * ? sagemaker:ModelApprovalStatus=Approved
sagemaker:DescribeProcessingJob,DescribeTrainingJob @ sagemaker:processing-job/pipelines-*
    sagemaker:training-job/pipelines-* ?
    aws:ResourceTag/sagemaker:pipeline-execution-arn=sagemaker:pipeline/churn/execution/*,sagemaker:pipeline/churn-monitor/execution/*
logs:FilterLogEvents @ logs:ProcessingJobs:* logs:TrainingJobs:*
servicequotas:ListAWSDefaultServiceQuotas,ListServiceQuotas @ *
"""
RETRAIN = " scheduler:schedule/default/churn-production-retrain"
STAGING = """\
sagemaker:CreateModel,DescribeModelPackage,DescribeModelPackageGroup,ListModelPackages @
    sagemaker:model-package-group/churn sagemaker:model-package/churn/*
s3:GetObject @ bucket/churn/executions/*
s3:GetObject,PutObject @ bucket/churn/async/staging/*
s3:ListBucket,ListBucketVersions @ bucket ? s3:prefix=churn/*
kms:Decrypt,DescribeKey,GenerateDataKey @ kms:key/1234abcd-12ab-34cd-56ef-1234567890ab
kms:CreateGrant @ kms:key/1234abcd-12ab-34cd-56ef-1234567890ab ? kms:GrantIsForAWSResource=True
cloudformation:ContinueUpdateRollback,CreateChangeSet,DeleteChangeSet,DeleteStack,DescribeChangeSet,DescribeEvents,DescribeStackEvents,DescribeStacks,ExecuteChangeSet,ListChangeSets,ListStackResources
    @ cloudformation:stack/churn-staging/* cloudformation:stack/churn-staging-watch/*
cloudformation:TagResource,UntagResource @ cloudformation:stack/churn-staging/*
    cloudformation:stack/churn-staging-watch/* ?
    cloudformation:CreateAction=CreateChangeSet,ExecuteChangeSet
sagemaker:AddTags,CreateEndpoint,DeleteEndpoint,DeleteTags,DescribeEndpoint,InvokeEndpoint,InvokeEndpointAsync,ListTags,UpdateEndpoint,UpdateEndpointWeightsAndCapacities
    @ sagemaker:endpoint/churn-staging
sagemaker:CreateEndpointConfig,CreateModel @ sagemaker:model/* sagemaker:endpoint-config/* ?
    aws:RequestTag/project=churn
sagemaker:AddTags @ sagemaker:model/* sagemaker:endpoint-config/* ?
    aws:RequestTag/project=churn sagemaker:TaggingAction=CreateEndpointConfig,CreateModel
sagemaker:AddTags,CreateEndpoint,DeleteEndpointConfig,DeleteModel,UpdateEndpoint @
    sagemaker:model/* sagemaker:endpoint-config/* ? aws:ResourceTag/project=churn
    aws:RequestTag/project=?churn
iam:UntagRole sagemaker:DeleteTags @ iam:role/sm-mlops/churn/staging/* sagemaker:model/*
    sagemaker:endpoint-config/* ? aws:TagKeys!=project aws:ResourceTag/project=churn
sagemaker:DescribeEndpointConfig,DescribeModel,ListTags @ sagemaker:model/*
    sagemaker:endpoint-config/* ? aws:ResourceTag/project=?churn
iam:CreateRole @ iam:role/sm-mlops/churn/staging/* ? aws:RequestTag/project=churn
    iam:PermissionsBoundary=iam:policy/sm-mlops-boundary-eu-west-1
iam:DeleteRole,DeleteRolePolicy,PutRolePermissionsBoundary,PutRolePolicy,UpdateAssumeRolePolicy,UpdateRole
    @ iam:role/sm-mlops/churn/staging/* iam:role/sm-mlops/churn/churn-staging-ExecutionRole-* ?
    iam:PermissionsBoundary=iam:policy/sm-mlops-boundary-eu-west-1
iam:TagRole @ iam:role/sm-mlops/churn/staging/* ? aws:RequestTag/project=?churn
iam:GetRole,GetRolePolicy,ListAttachedRolePolicies,ListRolePolicies,ListRoleTags @
    iam:role/sm-mlops/churn/staging/* iam:role/sm-mlops/churn/churn-staging-ExecutionRole-*
iam:GetPolicy,GetRole @ iam:policy/sm-mlops-boundary-eu-west-1 iam:role/churn-*ExecutionRole-*
iam:PassRole @ iam:role/sm-mlops/churn/staging/* ?
    iam:PassedToService=sagemaker.amazonaws.com,scheduler.amazonaws.com
scheduler:CreateSchedule,DeleteSchedule,GetSchedule,UpdateSchedule @
    scheduler:schedule/default/churn-staging-batch
    scheduler:schedule/default/churn-staging-monitor
cloudwatch:DeleteAlarms,ListTagsForResource,PutMetricAlarm,TagResource,UntagResource @
    cloudwatch:alarm:churn-staging-drift cloudwatch:alarm:churn-staging-errors
    cloudwatch:alarm:churn-staging-invocations cloudwatch:alarm:churn-staging-latency
    cloudwatch:alarm:churn-staging-wake-up
    cloudwatch:alarm:TargetTracking-endpoint/churn-staging/*
application-autoscaling:DescribeScalableTargets,DescribeScalingPolicies,DescribeScheduledActions,ListTagsForResource
    cloudwatch:DescribeAlarms,PutMetricData sagemaker:ListEndpoints @ * ?
    cloudwatch:namespace=?sm-mlops
application-autoscaling:DeleteScalingPolicy,DeregisterScalableTarget,PutScalingPolicy,RegisterScalableTarget
    @ application-autoscaling:scalable-target/* ?
    application-autoscaling:service-namespace=sagemaker
application-autoscaling:TagResource,UntagResource @ application-autoscaling:scalable-target/*
iam:CreateServiceLinkedRole @
    iam:role/aws-service-role/sagemaker.application-autoscaling.amazonaws.com/*
logs:FilterLogEvents,TagResource @ logs:Endpoints/churn-staging logs:Endpoints/churn-staging:*
sts:AssumeRole @ iam::*:role/churn-deploy ? aws:ResourceAccount=222233334444
"""


@pytest.mark.parametrize(
    ("logical", "table"),
    [
        ("PipelineRole", PIPELINE),
        ("TrainRole", TRAIN),
        ("StagingRole", STAGING),
        ("ProductionRole", STAGING),
    ],
)
def test_a_role_may_this_and_nothing_else(logical: str, table: str) -> None:
    found = wrapped(lines(full_project("churn").policies(logical)))
    if logical == "ProductionRole":
        # Word for word the other stage's, and the schedule that trains.
        own = list(lines(full_project("churn").policies(logical)))
        assert sum(RETRAIN in line for line in own) == 1
        found = wrapped(line.replace(RETRAIN, "").replace("production", "staging") for line in own)
    assert found == table


def test_a_stage_elsewhere_may_what_it_may_at_home() -> None:
    """But for what is at home: the registry, the bucket, checks, and the boundary's name."""
    home = set(lines(full_project("churn").policies("StagingRole")))
    there = set(lines(deployment("churn", Stages="staging").policies("DeployRole")))
    assert {line.partition(" @ ")[0] for line in there - home} <= {
        "application-autoscaling:DescribeScalableTargets,DescribeScalingPolicies,"
        "DescribeScheduledActions,ListTagsForResource cloudwatch:DescribeAlarms "
        "sagemaker:ListEndpoints",
        "sagemaker:CreateModel",
        "iam:DeleteRole,DeleteRolePolicy,PutRolePermissionsBoundary,PutRolePolicy,"
        "UpdateAssumeRolePolicy,UpdateRole",
        "iam:GetRole,GetRolePolicy,ListAttachedRolePolicies,ListRolePolicies,ListRoleTags",
        "cloudwatch:DeleteAlarms,ListTagsForResource,PutMetricAlarm,TagResource,UntagResource",
        "scheduler:CreateSchedule,DeleteSchedule,GetSchedule,UpdateSchedule",
    }
