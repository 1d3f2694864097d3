"""What each operation of a service takes: actions on resources, the role it passes on, the tags it
gives. S3, whose operations are told by paths and queries, has a module of its own.

Source: the Service Authorization Reference,
https://docs.aws.amazon.com/service-authorization/latest/reference/reference_policies_actions-resources-contextkeys.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from sm_mlops.sandbox.iam.language import Value, many
from sm_mlops.sandbox.wire import Params

FIELD = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Check:
    """One action on one resource that a request needs, with the context keys it brings along."""

    action: str
    resource: str
    facts: Mapping[str, Value] = field(default_factory=dict)
    shown: str = ""
    """How the service names the resource in a denial, where it is not by its ARN."""


@dataclass(frozen=True)
class Place:
    """Where ARNs of a request are: and how names that say less than an ARN become one."""

    partition: str
    region: str
    account: str
    look: Callable[[str, str], str | None] = lambda kind, name: None
    """Returns the ARN of what exists, by kind and name."""

    def arn(self, service: str, resource: str) -> str:
        """Return an ARN; of services whose resources belong to no region, without one."""
        region = "" if service in ("iam", "sts") else self.region
        return f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"


# Each resource with the operations that need it; {Name} is a member of the request. An operation
# that is named several times needs all of its resources.
Table = Mapping[str, str]

SAGEMAKER: Table = {
    "*": """
        ListCodeRepositories ListDomains ListEndpointConfigs ListEndpoints ListModelPackageGroups
        ListModels ListPipelines ListProcessingJobs ListProjects ListTrainingJobs Search
        ListUserProfiles ListSpaces ListApps GetSagemakerServicecatalogPortfolioStatus
        EnableSagemakerServicecatalogPortfolio DisableSagemakerServicecatalogPortfolio""",
    "code-repository/{CodeRepositoryName}": """
        CreateCodeRepository DeleteCodeRepository DescribeCodeRepository UpdateCodeRepository""",
    "domain/{DomainId}": "DescribeDomain DeleteDomain UpdateDomain",
    "domain/*": "CreateDomain",
    "endpoint/{EndpointName}": """
        CreateEndpoint DeleteEndpoint DescribeEndpoint InvokeEndpoint InvokeEndpointAsync
        UpdateEndpoint UpdateEndpointWeightsAndCapacities""",
    "endpoint-config/{EndpointConfigName}": """
        CreateEndpoint CreateEndpointConfig DeleteEndpointConfig DescribeEndpointConfig
        UpdateEndpoint""",
    "model/{ModelName}": "CreateModel DeleteModel DescribeModel",
    "model-package/{ModelPackageName}": "DeleteModelPackage DescribeModelPackage",
    "model-package/{ModelPackageArn}": "UpdateModelPackage",
    "model-package/{ModelPackageArnList}": "BatchDescribeModelPackage",
    "model-package/{ModelPackageGroupName}/*": "ListModelPackages",
    "model-package-group/{ModelPackageGroupName}": """
        CreateModelPackageGroup DeleteModelPackageGroup DeleteModelPackageGroupPolicy
        DescribeModelPackageGroup GetModelPackageGroupPolicy PutModelPackageGroupPolicy""",
    "pipeline/{PipelineName}": """
        CreatePipeline DeletePipeline DescribePipeline ListPipelineExecutions
        StartPipelineExecution UpdatePipeline""",
    "{PipelineExecutionArn}": """
        DescribePipelineDefinitionForExecution DescribePipelineExecution
        ListPipelineExecutionSteps ListPipelineParametersForExecution RetryPipelineExecution
        StopPipelineExecution""",
    "processing-job/{ProcessingJobName}": """
        CreateProcessingJob DeleteProcessingJob DescribeProcessingJob StopProcessingJob""",
    "training-job/{TrainingJobName}": """
        CreateTrainingJob DeleteTrainingJob DescribeTrainingJob StopTrainingJob""",
    "project/{ProjectName}": "CreateProject DeleteProject DescribeProject UpdateProject",
    "{ResourceArn}": "AddTags DeleteTags ListTags",
    # Of a version the number is not known before: see _version.
    "": "CreateModelPackage",
}
CLOUDFORMATION: Table = {
    "*": """
        DescribeAccountLimits EstimateTemplateCost ListExports ListImports ListStacks ListTypes
        GetTemplateSummary ValidateTemplate""",
    "stack={StackName}": """
        CancelUpdateStack ContinueUpdateRollback CreateChangeSet CreateStack DeleteStack
        DescribeStackEvents DescribeStackResource DescribeStackResources DescribeStacks
        DetectStackDrift GetStackPolicy GetTemplate ListChangeSets ListStackResources
        RollbackStack SetStackPolicy UpdateStack UpdateTerminationProtection""",
    "changeset={ChangeSetName}": "DeleteChangeSet DescribeChangeSet ExecuteChangeSet",
}
IAM: Table = {
    "*": """
        CreateAccountAlias DeleteAccountAlias GetAccountAuthorizationDetails
        GetAccountPasswordPolicy GetAccountSummary ListAccountAliases ListGroups
        ListInstanceProfiles ListOpenIDConnectProviders ListPolicies ListRoles ListUsers
        SimulateCustomPolicy""",
    "role={RoleName}": """
        AttachRolePolicy CreateRole DeleteRole DeleteRolePermissionsBoundary DeleteRolePolicy
        DetachRolePolicy GetRole GetRolePolicy ListAttachedRolePolicies
        ListInstanceProfilesForRole ListRolePolicies ListRoleTags PutRolePermissionsBoundary
        PutRolePolicy TagRole UntagRole UpdateAssumeRolePolicy UpdateRole UpdateRoleDescription""",
    "user={UserName}": """
        AddUserToGroup AttachUserPolicy CreateAccessKey CreateLoginProfile CreateUser
        DeleteAccessKey DeleteLoginProfile DeleteUser DeleteUserPermissionsBoundary
        DeleteUserPolicy DetachUserPolicy GetLoginProfile GetUser GetUserPolicy ListAccessKeys
        ListAttachedUserPolicies ListGroupsForUser ListUserPolicies ListUserTags
        PutUserPermissionsBoundary PutUserPolicy TagUser UntagUser UpdateAccessKey UpdateUser""",
    "policy{Path}{PolicyName}": "CreatePolicy",
    "{PolicyArn}": """
        CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion
        ListEntitiesForPolicy ListPolicyTags ListPolicyVersions SetDefaultPolicyVersion TagPolicy
        UntagPolicy""",
    "{PolicySourceArn}": "SimulatePrincipalPolicy GetContextKeysForPrincipalPolicy",
    "oidc-provider/{Url}": "CreateOpenIDConnectProvider",
    "{OpenIDConnectProviderArn}": """
        AddClientIDToOpenIDConnectProvider DeleteOpenIDConnectProvider GetOpenIDConnectProvider
        ListOpenIDConnectProviderTags RemoveClientIDFromOpenIDConnectProvider
        TagOpenIDConnectProvider UntagOpenIDConnectProvider
        UpdateOpenIDConnectProviderThumbprint""",
    "role/aws-service-role/{AWSServiceName}/*": "CreateServiceLinkedRole",
}
LOGS: Table = {
    "*": "DescribeLogGroups DescribeResourcePolicies PutResourcePolicy DeleteResourcePolicy",
    "log-group:{logGroupName}:log-stream:": """
        CreateLogGroup DeleteLogGroup DeleteRetentionPolicy DescribeLogStreams FilterLogEvents
        PutRetentionPolicy ListTagsLogGroup TagLogGroup UntagLogGroup StartQuery
        PutSubscriptionFilter DeleteSubscriptionFilter DescribeSubscriptionFilters
        PutMetricFilter DeleteMetricFilter""",
    "log-group:{logGroupName}:log-stream:{logStreamName}": """
        CreateLogStream DeleteLogStream GetLogEvents PutLogEvents""",
    "{resourceArn}": "ListTagsForResource TagResource UntagResource",
}
CLOUDWATCH: Table = {
    "*": """
        DescribeAlarmsForMetric GetMetricData GetMetricStatistics ListMetrics PutMetricData
        ListDashboards""",
    "alarm:{AlarmName}": "PutMetricAlarm PutCompositeAlarm SetAlarmState",
    "alarm:{AlarmNames}": """
        DeleteAlarms DescribeAlarms DescribeAlarmHistory DisableAlarmActions EnableAlarmActions""",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
AUTOSCALING: Table = {
    "*": """
        DescribeScalableTargets DescribeScalingActivities DescribeScalingPolicies
        DescribeScheduledActions""",
    "scalable-target/*": """
        DeleteScalingPolicy DeleteScheduledAction DeregisterScalableTarget PutScalingPolicy
        PutScheduledAction RegisterScalableTarget""",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
SECRETS: Table = {
    "*": "GetRandomPassword ListSecrets BatchGetSecretValue",
    "secret:{Name}-??????": "CreateSecret",
    "secret={SecretId}": """
        CancelRotateSecret DeleteResourcePolicy DeleteSecret DescribeSecret GetResourcePolicy
        GetSecretValue ListSecretVersionIds PutResourcePolicy PutSecretValue RestoreSecret
        RotateSecret TagResource UntagResource UpdateSecret UpdateSecretVersionStage
        ValidateResourcePolicy""",
}
LAMBDA: Table = {
    "*": "GetAccountSettings ListFunctions ListLayers ListLayerVersions ListEventSourceMappings",
    "function:{FunctionName}": """
        AddPermission CreateFunction DeleteFunction DeleteFunctionConcurrency
        DeleteFunctionEventInvokeConfig GetFunction GetFunctionConcurrency
        GetFunctionConfiguration GetFunctionEventInvokeConfig GetPolicy Invoke InvokeAsync
        ListAliases ListFunctionEventInvokeConfigs ListVersionsByFunction PublishVersion
        PutFunctionConcurrency PutFunctionEventInvokeConfig RemovePermission UpdateFunctionCode
        UpdateFunctionConfiguration UpdateFunctionEventInvokeConfig CreateAlias DeleteAlias
        GetAlias UpdateAlias""",
    "layer:{LayerName}": "PublishLayerVersion",
    "layer:{LayerName}:{VersionNumber}": """
        AddLayerVersionPermission DeleteLayerVersion GetLayerVersion GetLayerVersionPolicy
        RemoveLayerVersionPermission""",
    "{Resource}": "ListTags TagResource UntagResource",
}
EVENTS: Table = {
    "*": "ListEventBuses ListRuleNamesByTarget ListRules TestEventPattern",
    "rule/{Name}": "DeleteRule DescribeRule DisableRule EnableRule PutRule",
    "rule/{Rule}": "ListTargetsByRule PutTargets RemoveTargets",
    "event-bus/default": "PutEvents",
    "event-bus/{Name}": "CreateEventBus DeleteEventBus DescribeEventBus UpdateEventBus",
    "{ResourceARN}": "ListTagsForResource TagResource UntagResource",
}
SQS: Table = {
    "*": "ListQueues",
    "{QueueName}": "CreateQueue GetQueueUrl",
    "queue={QueueUrl}": """
        AddPermission ChangeMessageVisibility ChangeMessageVisibilityBatch DeleteMessage
        DeleteMessageBatch DeleteQueue GetQueueAttributes ListDeadLetterSourceQueues
        ListQueueTags PurgeQueue ReceiveMessage RemovePermission SendMessage SendMessageBatch
        SetQueueAttributes TagQueue UntagQueue""",
}
SNS: Table = {
    "*": "ListSubscriptions ListTopics GetSubscriptionAttributes SetSubscriptionAttributes "
    "Unsubscribe",
    "{Name}": "CreateTopic",
    "{TopicArn}": """
        AddPermission ConfirmSubscription DeleteTopic GetTopicAttributes ListSubscriptionsByTopic
        Publish PublishBatch RemovePermission SetTopicAttributes Subscribe""",
    "{ResourceArn}": "ListTagsForResource TagResource UntagResource",
}
CATALOG: Table = {
    "*": """
        AssociateProductWithPortfolio DeleteConstraint DescribeConstraint DescribeProductView
        DescribeProvisionedProduct DescribeRecord DisassociateProductFromPortfolio
        GetProvisionedProductOutputs ListConstraintsForPortfolio ListPortfolios
        ListRecordHistory ScanProvisionedProducts SearchProducts SearchProductsAsAdmin
        SearchProvisionedProducts TerminateProvisionedProduct UpdateConstraint
        UpdateProvisionedProduct ListAcceptedPortfolioShares""",
    "portfolio/{Id}": "DeletePortfolio DescribePortfolio UpdatePortfolio",
    "portfolio/*": "CreatePortfolio",
    "portfolio/{PortfolioId}": """
        AssociatePrincipalWithPortfolio DisassociatePrincipalFromPortfolio ListPortfolioAccess
        ListPrincipalsForPortfolio""",
    "product/*": "CreateProduct",
    "product/{Id}": "DeleteProduct DescribeProduct DescribeProductAsAdmin UpdateProduct",
    "product/{ProductId}": """
        CreateConstraint CreateProvisioningArtifact DeleteProvisioningArtifact
        DescribeProvisioningArtifact DescribeProvisioningParameters ListLaunchPaths
        ListPortfoliosForProduct ListProvisioningArtifacts ProvisionProduct
        UpdateProvisioningArtifact""",
}
CONNECTIONS: Table = {
    "*": "CreateConnection CreateHost ListHosts",
    "connection/*": "ListConnections",
    "{ConnectionArn}": "DeleteConnection GetConnection",
    "{HostArn}": "DeleteHost GetHost UpdateHost",
    "{ResourceArn}": "ListTagsForResource TagResource UntagResource",
}
SSM: Table = {
    "*": "DescribeParameters",
    "parameter{Name}": "DeleteParameter GetParameter GetParameterHistory PutParameter",
    "parameter{Names}": "DeleteParameters GetParameters",
    "parameter{Path}": "GetParametersByPath",
    "parameter{ResourceId}": "AddTagsToResource ListTagsForResource RemoveTagsFromResource",
}
KMS: Table = {
    "*": "CreateKey ListAliases ListKeys GenerateRandom",
    "key={KeyId}": """
        CancelKeyDeletion CreateGrant Decrypt DescribeKey DisableKey DisableKeyRotation
        EnableKey EnableKeyRotation Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext
        GetKeyPolicy GetKeyRotationStatus GetPublicKey ListGrants ListKeyPolicies
        ListResourceTags PutKeyPolicy RevokeGrant ScheduleKeyDeletion Sign TagResource
        UntagResource UpdateKeyDescription Verify""",
    "alias={AliasName}": "CreateAlias DeleteAlias UpdateAlias",
    "key={TargetKeyId}": "CreateAlias UpdateAlias",
}
QUOTAS: Table = {
    "*": """
        GetAWSDefaultServiceQuota GetServiceQuota ListAWSDefaultServiceQuotas
        ListRequestedServiceQuotaChangeHistory ListServiceQuotas ListServices""",
}
STS: Table = {
    # Whoever has credentials may ask who that is; no policy is needed.
    # Who may take a role is decided in sign_in.py.
    "": """
        AssumeRole AssumeRoleWithWebIdentity GetAccessKeyInfo GetCallerIdentity
        GetSessionToken""",
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
    """The member of an operation that names a role, which it passes to `to`."""
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
        to="cloudformation.amazonaws.com",
        passes=dict.fromkeys(
            (
                *("CreateStack", "UpdateStack", "DeleteStack"),
                *("CreateChangeSet", "ContinueUpdateRollback", "RollbackStack"),
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
        renamed={"Invoke": "InvokeFunction", "InvokeAsync": "InvokeFunction"},
    ),
    "events": Service(
        "events",
        EVENTS,
        tagging="events:TagResource",
        passes={"PutRule": "RoleArn"},
        to="events.amazonaws.com",
    ),
    "sqs": Service(
        "sqs",
        SQS,
        tagging="sqs:TagQueue",
        renamed={
            "SendMessageBatch": "SendMessage",
            "DeleteMessageBatch": "DeleteMessage",
            "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
        },
    ),
    "sns": Service("sns", SNS, tagging="sns:TagResource", renamed={"PublishBatch": "Publish"}),
    "servicecatalog": Service("servicecatalog", CATALOG, "catalog"),
    "codeconnections": Service("codeconnections", CONNECTIONS),
    "codestar-connections": Service("codestar-connections", CONNECTIONS),
    "ssm": Service("ssm", SSM, tagging="ssm:AddTagsToResource"),
    "kms": Service("kms", KMS, tagging="kms:TagResource"),
    "servicequotas": Service("servicequotas", QUOTAS),
}


def _by_operation(table: Table) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for resource, operations in table.items():
        for operation in operations.split():
            found.setdefault(operation, []).append(resource)
    return found


_RESOURCES = {name: _by_operation(service.table) for name, service in SERVICES.items()}


def known(service: str) -> list[str]:
    """Return the operations of a service that the table has."""
    return list(_RESOURCES.get(service, {}))


def checks(service: str, operation: str, params: Params, place: Place) -> list[Check] | None:
    """Return what a request needs to be allowed, None for an operation that is not known here."""
    about = SERVICES.get(service)
    templates = _RESOURCES.get(service, {}).get(operation)
    if about is None or templates is None:
        return None
    action = f"{about.prefix}:{about.renamed.get(operation, operation)}"
    facts = {**_request_tags(params), **_special(service, operation, params)}
    found = []
    for template in _templates(operation, params, templates):
        if template:
            for resource, shown in _resources(about, template, operation, params, place):
                found.append(Check(action, resource, facts, shown))
    return [*found, *_tagging(about, service, operation, params, found), *_more(
        about, service, operation, params, place
    )]  # fmt: skip


def _templates(operation: str, params: Params, templates: list[str]) -> list[str]:
    # A few operations are told apart by what they are given.
    if operation == "ListModelPackages" and "ModelPackageGroupName" not in params:
        return ["*"]
    if operation == "DescribeStacks" and not params.get("StackName"):
        return ["*"]
    return templates


def _resources(
    about: Service, template: str, operation: str, params: Params, place: Place
) -> Iterator[tuple[str, str]]:
    """Yield ARNs, and how the service shows them; several where a member names several."""
    if template == "*":
        yield "*", ""
        return
    namespace = about.namespace or about.prefix
    kind, lookup, name = template.partition("=")
    if lookup:
        member = FIELD.fullmatch(name)
        assert member is not None
        yield _looked_up(kind, operation, params, member[1], place)
        return
    listed = next((f for f in FIELD.findall(template) if isinstance(params.get(f), list)), None)
    if listed is not None and not params[listed]:
        listed = None
    for one in params[listed] if listed else [None]:
        values = {**params, **({listed: one} if listed else {})}
        yield _filled(namespace, template, values, place), ""


def _filled(namespace: str, template: str, values: Params, place: Place) -> str:
    whole = FIELD.search(template)
    if whole is not None and str(values.get(whole[1], "")).startswith("arn:"):
        # Where a name may be given, an ARN may.
        return str(values[whole[1]])

    def value(found: re.Match[str]) -> str:
        given = values.get(found[1])
        if found[1] == "Path" and namespace == "iam":
            return str(given or "/")
        text = "*" if given is None else str(given)
        if found[1] == "Url":
            text = text.removeprefix("https://")
        if namespace == "ssm" and not text.startswith("/"):
            text = f"/{text}"
        return text

    return place.arn(namespace, FIELD.sub(value, template))


def _looked_up(
    kind: str, operation: str, params: Params, member: str, place: Place
) -> tuple[str, str]:
    """Return the ARN of something whose name does not say all of it, and how it is shown."""
    given = params.get(member)
    name = "*" if given is None else str(given)
    if kind in ("role", "user"):
        if operation in ("CreateRole", "CreateUser"):
            return place.arn("iam", f"{kind}{params.get('Path') or '/'}{name}"), ""
        # One that does not exist has no path that a policy could allow.
        arn = place.look(kind, name) or place.arn("iam", f"{kind}/{name}")
        return arn, f"{kind} {name}"
    if kind == "changeset":
        stack = params.get("StackName") or place.look("changeset", name)
        kind, name = "stack", str(stack or "*")
    if kind == "stack":
        if name.startswith("arn:"):
            return name, ""
        found = None if operation == "CreateStack" else place.look("stack", name)
        return found or place.arn("cloudformation", f"stack/{name}/*"), ""
    if kind == "queue":
        return place.arn("sqs", name.rpartition("/")[2]), ""
    if name.startswith("arn:"):
        return (name if kind != "secret" else place.look(kind, name) or name), ""
    found = place.look(kind, name)
    if found:
        return found, ""
    if kind == "secret":
        return place.arn("secretsmanager", f"secret:{name}"), ""
    if kind == "alias" or name.startswith("alias/"):
        return place.arn("kms", name), ""
    return place.arn("kms", f"key/{name}"), ""


# Context keys.


def tags_given(params: Params) -> dict[str, str]:
    """Return the tags of a request, in whatever form the service takes them."""
    given = next((params[n] for n in ("Tags", "tags", "TagList") if params.get(n)), None)
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    found = {}
    for tag in given if isinstance(given, list) else ():
        if isinstance(tag, Mapping):
            key = next((tag[n] for n in ("Key", "key", "TagKey") if n in tag), None)
            value = next((tag[n] for n in ("Value", "value", "TagValue") if n in tag), "")
            if key is not None:
                found[str(key)] = str(value)
    return found


def _request_tags(params: Params) -> dict[str, Value]:
    tags = tags_given(params)
    keys = list(tags)
    for name in ("TagKeys", "tagKeys"):
        keys += [str(key) for key in many(params.get(name))]
    facts: dict[str, Value] = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    if keys:
        facts["aws:TagKeys"] = tuple(keys)
    return facts


def _texts(value: Any) -> Value:
    found = tuple(str(item) for item in many(value))
    return found or None


def _special(service: str, operation: str, params: Params) -> dict[str, Value]:
    """Return the context keys that a service has of its own."""

    def given(**names: str) -> dict[str, Value]:
        prefix = SERVICES[service].prefix
        return {
            f"{prefix}:{key.replace('_', '-')}": str(params[member])
            for key, member in names.items()
            if params.get(member) is not None
        }

    if service == "iam":
        found = given(PolicyARN="PolicyArn", AWSServiceName="AWSServiceName")
        if operation in (
            *("CreateRole", "CreateUser"),
            *("PutRolePermissionsBoundary", "PutUserPermissionsBoundary"),
        ):
            found["iam:PermissionsBoundary"] = params.get("PermissionsBoundary")
        return found
    if service == "monitoring":
        return given(namespace="Namespace")
    if service == "application-autoscaling":
        return given(service_namespace="ServiceNamespace", scalable_dimension="ScalableDimension")
    if service == "cloudformation":
        return given(RoleArn="RoleARN", TemplateUrl="TemplateURL", ChangeSetName="ChangeSetName")
    if service == "secretsmanager":
        shown = given(
            Name="Name", Description="Description", KmsKeyId="KmsKeyId", SecretId="SecretId"
        )
        return {**shown, **given(VersionId="VersionId", VersionStage="VersionStage")}
    if service == "kms":
        return {
            "kms:GrantOperations": _texts(params.get("Operations")),
            **given(GranteePrincipal="GranteePrincipal"),
        }
    if service == "lambda":
        return {**given(Principal="Principal"), "lambda:Layer": _texts(params.get("Layers"))}
    if service == "sns":
        return given(Protocol="Protocol", Endpoint="Endpoint")
    return _sagemaker_facts(params) if service == "sagemaker" else {}


def _sagemaker_facts(params: Params) -> dict[str, Value]:
    vpc = params.get("VpcConfig") or (params.get("NetworkConfig") or {}).get("VpcConfig") or {}
    isolated = params.get("EnableNetworkIsolation")
    if isolated is None:
        isolated = (params.get("NetworkConfig") or {}).get("EnableNetworkIsolation")
    resources = params.get("ResourceConfig") or (params.get("ProcessingResources") or {}).get(
        "ClusterConfig", {}
    )
    types = [resources.get("InstanceType")]
    types += [v.get("InstanceType") for v in many(params.get("ProductionVariants"))]
    output = params.get("OutputDataConfig") or params.get("ProcessingOutputConfig") or {}
    return {
        "sagemaker:ModelApprovalStatus": params.get("ModelApprovalStatus"),
        "sagemaker:NetworkIsolation": None if isolated is None else str(isolated).lower(),
        "sagemaker:VpcSubnets": _texts(vpc.get("Subnets")),
        "sagemaker:VpcSecurityGroupIds": _texts(vpc.get("SecurityGroupIds")),
        "sagemaker:InstanceTypes": _texts([name for name in types if name]),
        "sagemaker:VolumeKmsKey": resources.get("VolumeKmsKeyId") or params.get("KmsKeyId"),
        "sagemaker:OutputKmsKey": output.get("KmsKeyId"),
    }


# What a request needs beside its own action.


def _tagging(
    about: Service, service: str, operation: str, params: Params, own: list[Check]
) -> Iterator[Check]:
    """Yield what giving tags to what is being made takes."""
    given = tags_given(params)
    if not (about.tagging and given) or "Tag" in operation:
        return
    facts = dict(_request_tags(params))
    if service == "sagemaker":
        facts["sagemaker:TaggingAction"] = operation
    action = about.tagging.format(operation.removeprefix("Create"))
    for check in own:
        if check.resource != "*" and not _another(service, operation, check):
            yield Check(action, check.resource, facts)


def _another(service: str, operation: str, check: Check) -> bool:
    """Tell whether a resource is only used by an operation that makes another."""
    return (
        service == "sagemaker"
        and operation == "CreateEndpoint"
        and (":endpoint-config/" in check.resource)
    )


def _more(
    about: Service, service: str, operation: str, params: Params, place: Place
) -> Iterator[Check]:
    role = params.get(about.passes.get(operation, ""))
    if role:
        facts: dict[str, Value] = {"iam:PassedToService": about.to}
        yield Check("iam:PassRole", str(role), facts)
    if service == "sagemaker" and operation == "CreateModelPackage":
        yield from _version(params, place)
    if service == "application-autoscaling" and params.get("ServiceNamespace") == "sagemaker":
        yield from _scaling(operation, params, place)


def _version(params: Params, place: Place) -> Iterator[Check]:
    """Yield what registering a version takes: its group, and the versions of the group."""
    action, facts = "sagemaker:CreateModelPackage", _request_tags(params)
    facts |= {"sagemaker:ModelApprovalStatus": params.get("ModelApprovalStatus")}
    group = params.get("ModelPackageGroupName")
    if group:
        arn = group if str(group).startswith("arn:") else None
        arn = arn or place.arn("sagemaker", f"model-package-group/{group}")
        version = arn.replace(":model-package-group/", ":model-package/") + "/*"
        yield Check(action, arn, facts)
    else:
        version = place.arn("sagemaker", f"model-package/{params.get('ModelPackageName', '*')}")
    yield Check(action, version, facts)
    if tags_given(params):
        tagged = {**facts, "sagemaker:TaggingAction": "CreateModelPackage"}
        yield Check("sagemaker:AddTags", version, tagged)


def _scaling(operation: str, params: Params, place: Place) -> Iterator[Check]:
    """Who scales an endpoint must be allowed to change it. Source:
    https://docs.aws.amazon.com/autoscaling/application/userguide/security_iam_permission_validation.html
    """
    parts = str(params.get("ResourceId", "")).split("/")
    if operation not in ("RegisterScalableTarget", "PutScalingPolicy") or len(parts) < 2:
        return
    endpoint = place.arn("sagemaker", f"endpoint/{parts[1]}")
    if operation == "RegisterScalableTarget":
        yield Check("sagemaker:DescribeEndpoint", endpoint)
        yield Check("sagemaker:UpdateEndpointWeightsAndCapacities", endpoint)
        return
    if params.get("PolicyType") == "TargetTrackingScaling":
        alarm = place.arn("cloudwatch", f"alarm:TargetTracking-{'/'.join(parts[:2])}/*")
        yield Check("cloudwatch:PutMetricAlarm", alarm)
