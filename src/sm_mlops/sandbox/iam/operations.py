"""The operations that policies can allow, with the resources that each needs, by service.

Lists what the tool, the workflows and the sandbox's services call; only the sandbox's own key may
call anything else. Source: the Service Authorization Reference,
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

# Each resource with the operations that need it; {Name} is a member of the request. An operation
# that is named several times needs all of its resources.
Table = Mapping[str, str]

SAGEMAKER: Table = {
    "*": """
        ListCodeRepositories ListDomains ListEndpointConfigs ListEndpoints
        ListModelPackageGroups ListModels ListPipelines ListProjects ListTransformJobs""",
    "code-repository/{CodeRepositoryName}": """
        CreateCodeRepository DeleteCodeRepository DescribeCodeRepository
        UpdateCodeRepository""",
    "domain/{DomainId}": "DescribeDomain",
    "endpoint/{EndpointName}": """
        CreateEndpoint DeleteEndpoint DescribeEndpoint InvokeEndpoint InvokeEndpointAsync
        UpdateEndpoint UpdateEndpointWeightsAndCapacities""",
    "endpoint-config/{EndpointConfigName}": """
        CreateEndpoint CreateEndpointConfig DeleteEndpointConfig DescribeEndpointConfig
        UpdateEndpoint""",
    "model/{ModelName}": "CreateModel DeleteModel DescribeModel",
    "model-package/{ModelPackageName}": "DeleteModelPackage DescribeModelPackage",
    "model-package/{ModelPackageArn}": "UpdateModelPackage",
    "model-package/{ModelPackageGroupName}/*": "ListModelPackages",
    "model-package-group/{ModelPackageGroupName}": """
        CreateModelPackageGroup DeleteModelPackageGroup DeleteModelPackageGroupPolicy
        DescribeModelPackageGroup GetModelPackageGroupPolicy PutModelPackageGroupPolicy""",
    "pipeline/{PipelineName}": """
        CreatePipeline DeletePipeline DescribePipeline ListPipelineExecutions
        StartPipelineExecution UpdatePipeline""",
    "{PipelineExecutionArn}": """
        DescribePipelineDefinitionForExecution DescribePipelineExecution
        ListPipelineExecutionSteps ListPipelineParametersForExecution
        RetryPipelineExecution StopPipelineExecution""",
    "processing-job/{ProcessingJobName}": """
        CreateProcessingJob DeleteProcessingJob DescribeProcessingJob StopProcessingJob""",
    "training-job/{TrainingJobName}": """
        CreateTrainingJob DeleteTrainingJob DescribeTrainingJob StopTrainingJob""",
    "transform-job/{TransformJobName}": """
        CreateTransformJob DescribeTransformJob StopTransformJob""",
    "project/{ProjectName}": "CreateProject DeleteProject DescribeProject UpdateProject",
    "{ResourceArn}": "AddTags DeleteTags ListTags",
    # Of a version the number is not known before: see actions.py.
    "": "CreateModelPackage",
}
CLOUDFORMATION: Table = {
    "*": "ListImports GetTemplateSummary ValidateTemplate",
    "stack={StackName}": """
        ContinueUpdateRollback CreateChangeSet CreateStack DeleteStack DescribeStackEvents
        DescribeStackResources DescribeStacks GetTemplate ListChangeSets ListStackResources
        SetStackPolicy UpdateStack""",
    "changeset={ChangeSetName}": "DeleteChangeSet DescribeChangeSet ExecuteChangeSet",
}
IAM: Table = {
    "*": "GetAccountSummary ListOpenIDConnectProviders ListRoles",
    "role={RoleName}": """
        CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy
        DetachRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies ListRolePolicies
        ListRoleTags PutRolePermissionsBoundary PutRolePolicy TagRole UntagRole
        UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription""",
    "user={UserName}": """
        CreateAccessKey CreateUser DeleteAccessKey DeleteUser DeleteUserPermissionsBoundary
        DeleteUserPolicy DetachUserPolicy GetLoginProfile GetUser GetUserPolicy
        ListAccessKeys ListAttachedUserPolicies ListGroupsForUser ListUserPolicies
        ListUserTags PutUserPermissionsBoundary PutUserPolicy TagUser UntagUser
        UpdateAccessKey""",
    "policy{Path}{PolicyName}": "CreatePolicy",
    "{PolicyArn}": """
        CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy ListPolicyVersions""",
    "{PolicySourceArn}": "SimulatePrincipalPolicy",
    "oidc-provider/{Url}": "CreateOpenIDConnectProvider",
    "{OpenIDConnectProviderArn}": """
        DeleteOpenIDConnectProvider GetOpenIDConnectProvider TagOpenIDConnectProvider
        UntagOpenIDConnectProvider""",
    "role/aws-service-role/{AWSServiceName}/*": "CreateServiceLinkedRole",
}
LOGS: Table = {
    "*": "PutResourcePolicy DeleteResourcePolicy",
    "log-group:{logGroupName}:log-stream:": """
        CreateLogGroup DeleteLogGroup DeleteRetentionPolicy DescribeLogStreams
        FilterLogEvents PutRetentionPolicy""",
    "log-group:{logGroupName}:log-stream:{logStreamName}": "CreateLogStream PutLogEvents",
    "{resourceArn}": "ListTagsForResource TagResource UntagResource",
}
CLOUDWATCH: Table = {
    "*": "GetMetricData GetMetricStatistics ListDashboards PutMetricData",
    "alarm:{AlarmName}": "PutMetricAlarm",
    "alarm:{AlarmNames}": "DeleteAlarms DescribeAlarms",
    "dashboard/{DashboardName}": "GetDashboard PutDashboard",
    "dashboard/{DashboardNames}": "DeleteDashboards",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
AUTOSCALING: Table = {
    "*": "DescribeScalableTargets DescribeScalingPolicies",
    "scalable-target/*": """
        DeleteScalingPolicy DeregisterScalableTarget PutScalingPolicy
        RegisterScalableTarget""",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
SECRETS: Table = {
    "secret:{Name}-??????": "CreateSecret",
    "secret={SecretId}": """
        DeleteResourcePolicy DeleteSecret DescribeSecret GetResourcePolicy GetSecretValue
        ListSecretVersionIds PutResourcePolicy PutSecretValue TagResource UntagResource
        UpdateSecret ValidateResourcePolicy""",
}
LAMBDA: Table = {
    "*": "ListFunctions",
    "function:{FunctionName}": """
        AddPermission CreateFunction DeleteFunction DeleteFunctionEventInvokeConfig
        GetFunction GetFunctionConfiguration GetPolicy Invoke PutFunctionEventInvokeConfig
        RemovePermission UpdateFunctionCode UpdateFunctionConfiguration""",
    "layer:{LayerName}": "PublishLayerVersion",
    "layer:{LayerName}:{VersionNumber}": "DeleteLayerVersion GetLayerVersion",
    "{Resource}": "ListTags TagResource UntagResource",
}
EVENTS: Table = {
    "*": "ListRules",
    "rule/{Name}": "DeleteRule DescribeRule DisableRule EnableRule PutRule",
    "rule/{Rule}": "ListTargetsByRule PutTargets RemoveTargets",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
SQS: Table = {
    "{QueueName}": "CreateQueue GetQueueUrl",
    "queue={QueueUrl}": """
        AddPermission DeleteMessage DeleteQueue GetQueueAttributes ReceiveMessage
        RemovePermission SendMessage SetQueueAttributes TagQueue UntagQueue""",
}
SNS: Table = {
    "*": "GetSubscriptionAttributes ListSubscriptions ListTopics Unsubscribe",
    "{Name}": "CreateTopic",
    "{TopicArn}": """
        DeleteTopic GetTopicAttributes ListSubscriptionsByTopic Publish SetTopicAttributes
        Subscribe""",
    "{ResourceArn}": "ListTagsForResource TagResource UntagResource",
}
SCHEDULER: Table = {
    "*": "ListSchedules",
    # The sandbox has no other group.
    "schedule/default/{Name}": "CreateSchedule DeleteSchedule GetSchedule UpdateSchedule",
}
CATALOG: Table = {
    "*": """
        AssociateProductWithPortfolio DeleteConstraint DescribeConstraint
        DisassociateProductFromPortfolio ListConstraintsForPortfolio ListPortfolios
        SearchProductsAsAdmin SearchProvisionedProducts""",
    "portfolio/{Id}": "DeletePortfolio",
    "portfolio/*": "CreatePortfolio",
    "portfolio/{PortfolioId}": """
        AssociatePrincipalWithPortfolio DisassociatePrincipalFromPortfolio
        ListPrincipalsForPortfolio""",
    "product/*": "CreateProduct",
    "product/{Id}": "DeleteProduct DescribeProductAsAdmin UpdateProduct",
    "product/{ProductId}": """
        CreateConstraint CreateProvisioningArtifact DeleteProvisioningArtifact
        DescribeProvisioningArtifact ListLaunchPaths ListProvisioningArtifacts
        UpdateProvisioningArtifact""",
}
CONNECTIONS: Table = {
    "*": "CreateConnection",
    "connection/*": "ListConnections",
    "{ConnectionArn}": "DeleteConnection GetConnection",
}
KMS: Table = {
    "key={KeyId}": """
        CreateGrant Decrypt DescribeKey Encrypt GenerateDataKey
        GenerateDataKeyWithoutPlaintext GetKeyPolicy PutKeyPolicy""",
}
QUOTAS: Table = {
    "*": "GetAWSDefaultServiceQuota GetServiceQuota ListAWSDefaultServiceQuotas ListServiceQuotas",
}
STS: Table = {
    # GetCallerIdentity needs no policy.
    # sign_in.py decides who may assume a role.
    "": "AssumeRole AssumeRoleWithWebIdentity GetCallerIdentity",
}


@dataclass(frozen=True)
class Service:
    """A service's operations. `prefix` begins its actions, `namespace` its ARNs."""

    prefix: str
    table: Table
    namespace: str = ""
    tagging: str = ""
    """The action that giving tags takes as well, {} being the kind of what is made."""
    passes: Mapping[str, str] = field(default_factory=dict)
    """The member of an operation (Outer.Inner) that names a role, which it passes to `to`."""
    to: str = ""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Operations whose action is called otherwise."""


# By the name that requests are signed for.
SERVICES: Mapping[str, Service] = {
    "sagemaker": Service(
        "sagemaker",
        SAGEMAKER,
        tagging="sagemaker:AddTags",
        to="sagemaker.amazonaws.com",
        passes={
            "CreateModel": "ExecutionRoleArn",
            "CreateEndpointConfig": "ExecutionRoleArn",
            "CreatePipeline": "RoleArn",
            "UpdatePipeline": "RoleArn",
            "CreateProcessingJob": "RoleArn",
            "CreateTrainingJob": "RoleArn",
        },
    ),
    "cloudformation": Service(
        "cloudformation",
        CLOUDFORMATION,
        tagging="cloudformation:TagResource",
        to="cloudformation.amazonaws.com",
        passes=dict.fromkeys(
            (
                *("CreateStack", "UpdateStack", "DeleteStack"),
                *("CreateChangeSet", "ContinueUpdateRollback"),
            ),
            "RoleARN",
        ),
    ),
    "iam": Service("iam", IAM, tagging="iam:Tag{}"),
    "sts": Service("sts", STS),
    "logs": Service("logs", LOGS, tagging="logs:TagResource"),
    "monitoring": Service("cloudwatch", CLOUDWATCH, tagging="cloudwatch:TagResource"),
    "application-autoscaling": Service(
        "application-autoscaling",
        AUTOSCALING,
        tagging="application-autoscaling:TagResource",
        passes={"RegisterScalableTarget": "RoleARN"},
        to="application-autoscaling.amazonaws.com",
    ),
    "secretsmanager": Service("secretsmanager", SECRETS, tagging="secretsmanager:TagResource"),
    "lambda": Service(
        "lambda",
        LAMBDA,
        tagging="lambda:TagResource",
        passes={"CreateFunction": "Role", "UpdateFunctionConfiguration": "Role"},
        to="lambda.amazonaws.com",
        renamed={"Invoke": "InvokeFunction"},
    ),
    "events": Service(
        "events",
        EVENTS,
        tagging="events:TagResource",
        passes={"PutRule": "RoleArn"},
        to="events.amazonaws.com",
    ),
    "sqs": Service("sqs", SQS, tagging="sqs:TagQueue"),
    "sns": Service("sns", SNS, tagging="sns:TagResource"),
    "scheduler": Service(
        "scheduler",
        SCHEDULER,
        passes=dict.fromkeys(("CreateSchedule", "UpdateSchedule"), "Target.RoleArn"),
        to="scheduler.amazonaws.com",
    ),
    "servicecatalog": Service("servicecatalog", CATALOG, "catalog"),
    "codeconnections": Service("codeconnections", CONNECTIONS),
    "kms": Service("kms", KMS),
    "servicequotas": Service("servicequotas", QUOTAS),
}
