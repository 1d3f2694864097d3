"""The resource types that connect an account to GitHub: functions, rules, secrets, sign-in, the
catalog, connections, projects.

Every call goes to the sandbox's own address, so it meets the same checks as anybody's.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

from sm_mlops.sandbox.cloudformation.calls import (
    Call,
    Name,
    Provider,
    ResourceFailed,
    Tagging,
    absent_is_fine,
    document,
    handled,
    last_part,
    only,
    pairs,
    pick,
    present,
    without,
)
from sm_mlops.sandbox.cloudformation.expressions import Made
from sm_mlops.sandbox.cloudformation.resources.sagemaker import SAGEMAKER
from sm_mlops.sandbox.cloudformation.template import Json

RULES = Tagging("tag_resource", "untag_resource", "ResourceARN")
SECRETS = Tagging("tag_resource", "untag_resource", "SecretId")
FUNCTIONS = Tagging("tag_resource", "untag_resource", "Resource", as_map=True)
CONNECTIONS = Tagging("tag_resource", "untag_resource", "ResourceArn")
OIDC = Tagging(
    "tag_open_id_connect_provider",
    "untag_open_id_connect_provider",
    "OpenIDConnectProviderArn",
)
USERS = Tagging("tag_user", "untag_user", "UserName")

# Lambda.

_SETTINGS = (
    "Runtime",
    "Role",
    "Handler",
    "Description",
    "Timeout",
    "MemorySize",
    "Environment",
    "Layers",
    "DeadLetterConfig",
    "LoggingConfig",
    "TracingConfig",
    "EphemeralStorage",
)
_FUNCTION = (
    *_SETTINGS,
    "FunctionName",
    "Code",
    "Architectures",
    "KmsKeyArn",
    "PackageType",
    "ReservedConcurrentExecutions",
)
# What a setting becomes that a template no longer has.
_DEFAULTS: Json = {
    "Description": "",
    "Timeout": 3,
    "MemorySize": 128,
    "Environment": {"Variables": {}},
    "Layers": [],
    "DeadLetterConfig": {},
    "LoggingConfig": {},
    "TracingConfig": {"Mode": "PassThrough"},
    "EphemeralStorage": {"Size": 512},
}


def _function_create(call: Call) -> Made:
    only(call, *_FUNCTION)
    given = call.properties
    key = present(KMSKeyArn=given.get("KmsKeyArn"), Tags=call.tags)
    answer = call.client("lambda").create_function(
        FunctionName=call.name,
        Code=_code(given["Code"]),
        **pick(given, *_SETTINGS, "Architectures", "PackageType"),
        **key,
    )
    call.made(call.name)
    return _function(call, answer["FunctionArn"])


def _function_update(call: Call) -> Made:
    only(call, *_FUNCTION)
    client, given, name = call.client("lambda"), call.properties, call.physical
    if call.changed("Code", "Architectures"):
        client.update_function_code(
            FunctionName=name, **_code(given["Code"]), **pick(given, "Architectures")
        )
    changes = {key: given.get(key, _DEFAULTS.get(key)) for key in _SETTINGS if call.changed(key)}
    if changes:
        client.update_function_configuration(FunctionName=name, **changes)
    found = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    FUNCTIONS.apply(client, found, call)
    return _function(call, found)


def _function(call: Call, found: str) -> Made:
    client, limit = call.client("lambda"), call.properties.get("ReservedConcurrentExecutions")
    if call.changed("ReservedConcurrentExecutions"):
        if limit is None:
            client.delete_function_concurrency(FunctionName=call.physical)
        else:
            client.put_function_concurrency(
                FunctionName=call.physical, ReservedConcurrentExecutions=limit
            )
    return Made(call.physical, {"Arn": found})


def _function_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("lambda").delete_function(FunctionName=call.physical)


def _code(code: Json) -> Json:
    """Return the argument Code; a template may hold the text of index.py."""
    if "ZipFile" not in code:
        return pick(code, "S3Bucket", "S3Key", "S3ObjectVersion")
    import io
    import zipfile

    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        # A fixed time, so that the same text gives the same hash.
        archive.writestr(zipfile.ZipInfo("index.py"), code["ZipFile"])
    return {"ZipFile": body.getvalue()}


def _layer_create(call: Call) -> Made:
    given = dict(call.properties)
    given["Content"] = pick(given["Content"], "S3Bucket", "S3Key", "S3ObjectVersion")
    given["LayerName"] = call.name
    found = call.client("lambda").publish_layer_version(**given)["LayerVersionArn"]
    call.made(found)
    return Made(found, {"LayerVersionArn": found})


def _layer_delete(call: Call) -> None:
    layer, _, version = call.physical.rpartition(":")
    with absent_is_fine():
        call.client("lambda").delete_layer_version(
            LayerName=layer.rpartition(":")[2], VersionNumber=int(version)
        )


def _permission_create(call: Call) -> Made:
    statement = call.name
    call.client("lambda").add_permission(
        StatementId=statement,
        **pick(
            call.properties,
            "FunctionName",
            "Action",
            "Principal",
            "SourceArn",
            "SourceAccount",
            "EventSourceToken",
            "PrincipalOrgID",
            "FunctionUrlAuthType",
        ),
    )
    call.made(statement)
    return Made(statement, {"Id": statement})


def _permission_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("lambda").remove_permission(
            FunctionName=call.properties["FunctionName"], StatementId=call.physical
        )


def _invoke_config_put(call: Call) -> Made:
    given = without(call.properties, "Qualifier")
    call.client("lambda").put_function_event_invoke_config(**given, **_qualifier(call))
    found = f"{call.properties['FunctionName']}|{call.properties['Qualifier']}"
    call.made(found)
    return Made(found, {})


def _invoke_config_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("lambda").delete_function_event_invoke_config(
            FunctionName=call.properties["FunctionName"], **_qualifier(call)
        )


def _qualifier(call: Call) -> Json:
    qualifier = call.properties["Qualifier"]
    return {} if qualifier == "$LATEST" else {"Qualifier": qualifier}


# EventBridge.


def _rule_create(call: Call) -> Made:
    return _rule_put(call, call.name, present(Tags=pairs(call.tags)))


def _rule_update(call: Call) -> Made:
    made = _rule_put(call, call.physical.rpartition("|")[2], {})
    events = call.client("events")
    kept = {target["Id"] for target in call.properties.get("Targets", [])}
    gone = [t["Id"] for t in call.previous.get("Targets", []) if t["Id"] not in kept]
    if gone:
        events.remove_targets(Rule=call.physical.rpartition("|")[2], Ids=gone, **_bus(call))
    RULES.apply(events, made.attributes["Arn"], call)
    return made


def _rule_put(call: Call, name: str, tags: Json) -> Made:
    events, given = call.client("events"), dict(call.properties)
    if "EventPattern" in given:
        given["EventPattern"] = document(given["EventPattern"])
    found = events.put_rule(**without(given, "Targets", "Name"), Name=name, **tags)["RuleArn"]
    bus = given.get("EventBusName", "default")
    # A template may name the bus by its ARN.
    reference = name if bus.rpartition("/")[2] == "default" else f"{bus}|{name}"
    call.made(reference)
    if given.get("Targets"):
        answer = events.put_targets(Rule=name, Targets=given["Targets"], **_bus(call))
        if answer["FailedEntryCount"]:
            raise ResourceFailed(handled(json.dumps(answer["FailedEntries"]), "InvalidRequest"))
    return Made(reference, {"Arn": found})


def _rule_delete(call: Call) -> None:
    events, name = call.client("events"), call.physical.rpartition("|")[2]
    with absent_is_fine():
        rows = events.list_targets_by_rule(Rule=name, **_bus(call))["Targets"]
        if rows:
            events.remove_targets(Rule=name, Ids=[row["Id"] for row in rows], **_bus(call))
        events.delete_rule(Name=name, **_bus(call))


def _bus(call: Call) -> Json:
    return pick(call.properties, "EventBusName")


# Secrets Manager.

_SECRET = ("Name", "Description", "KmsKeyId", "SecretString", "GenerateSecretString")
_GENERATED = {
    "ExcludeCharacters": "ExcludeCharacters",
    "ExcludeLowercase": "ExcludeLowercase",
    "ExcludeNumbers": "ExcludeNumbers",
    "ExcludePunctuation": "ExcludePunctuation",
    "ExcludeUppercase": "ExcludeUppercase",
    "IncludeSpace": "IncludeSpace",
    "PasswordLength": "PasswordLength",
    "RequireEachIncludedType": "RequireEachIncludedType",
}


def _secret_create(call: Call) -> Made:
    only(call, *_SECRET)
    found = call.client("secretsmanager").create_secret(
        Name=call.name,
        **pick(call.properties, "Description", "KmsKeyId"),
        **_secret_value(call),
        **present(Tags=pairs(call.tags)),
    )["ARN"]
    call.made(found)
    return Made(found, {"Id": found})


def _secret_update(call: Call) -> Made:
    only(call, *_SECRET)
    client = call.client("secretsmanager")
    # What a person has put into the secret stays, unless the template's own value changes.
    value = _secret_value(call) if call.changed("SecretString", "GenerateSecretString") else {}
    if value or call.changed("Description", "KmsKeyId"):
        client.update_secret(
            SecretId=call.physical, **pick(call.properties, "Description", "KmsKeyId"), **value
        )
    SECRETS.apply(client, call.physical, call)
    return Made(call.physical, {"Id": call.physical})


def _secret_value(call: Call) -> Json:
    given = call.properties
    if "SecretString" in given:
        return {"SecretString": given["SecretString"]}
    rules = given.get("GenerateSecretString")
    if rules is None:
        return {}
    made = call.client("secretsmanager").get_random_password(
        **{_GENERATED[name]: value for name, value in rules.items() if name in _GENERATED}
    )["RandomPassword"]
    if "GenerateStringKey" in rules:
        template = json.loads(rules.get("SecretStringTemplate", "{}"))
        return {"SecretString": json.dumps({**template, rules["GenerateStringKey"]: made})}
    return {"SecretString": made}


def _secret_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("secretsmanager").delete_secret(
            SecretId=call.physical, ForceDeleteWithoutRecovery=True
        )


def _secret_policy_put(call: Call) -> Made:
    given = call.properties
    found = call.client("secretsmanager").put_resource_policy(
        SecretId=given["SecretId"],
        ResourcePolicy=document(given["ResourcePolicy"]),
        **pick(given, "BlockPublicPolicy"),
    )["ARN"]
    call.made(found)
    return Made(found, {"Id": found})


def _secret_policy_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("secretsmanager").delete_resource_policy(SecretId=call.physical)


# IAM.


def _oidc_create(call: Call) -> Made:
    given = call.properties
    found = call.client("iam").create_open_id_connect_provider(
        Url=given["Url"],
        **present(
            ClientIDList=given.get("ClientIdList"),
            ThumbprintList=given.get("ThumbprintList"),
            Tags=pairs(call.tags),
        ),
    )["OpenIDConnectProviderArn"]
    call.made(found)
    return Made(found, {"Arn": found})


def _oidc_update(call: Call) -> Made:
    iam, found = call.client("iam"), call.physical
    where = {"OpenIDConnectProviderArn": found}
    if call.changed("ThumbprintList"):
        iam.update_open_id_connect_provider_thumbprint(
            **where, ThumbprintList=call.properties.get("ThumbprintList", [])
        )
    if call.changed("ClientIdList"):
        raise ResourceFailed("The sandbox does not change ClientIdList of AWS::IAM::OIDCProvider")
    OIDC.apply(iam, found, call)
    return Made(found, {"Arn": found})


def _oidc_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("iam").delete_open_id_connect_provider(OpenIDConnectProviderArn=call.physical)


_USER = ("UserName", "Path", "PermissionsBoundary", "Policies", "ManagedPolicyArns")


def _user_create(call: Call) -> Made:
    only(call, *_USER)
    call.client("iam").create_user(
        UserName=call.name,
        **pick(call.properties, "Path", "PermissionsBoundary"),
        **present(Tags=pairs(call.tags)),
    )
    call.made(call.name)
    return _user(call)


def _user_update(call: Call) -> Made:
    only(call, *_USER)
    iam, name = call.client("iam"), call.physical
    if call.changed("Path"):
        iam.update_user(UserName=name, NewPath=call.properties.get("Path", "/"))
    if call.changed("PermissionsBoundary"):
        boundary = call.properties.get("PermissionsBoundary")
        if boundary:
            iam.put_user_permissions_boundary(UserName=name, PermissionsBoundary=boundary)
        else:
            iam.delete_user_permissions_boundary(UserName=name)
    USERS.apply(iam, name, call)
    return _user(call)


def _user(call: Call) -> Made:
    iam, name = call.client("iam"), call.physical
    old, new = (set(e.get("ManagedPolicyArns", [])) for e in (call.previous, call.properties))
    for policy in sorted(new - old):
        iam.attach_user_policy(UserName=name, PolicyArn=policy)
    for policy in sorted(old - new):
        with absent_is_fine():
            iam.detach_user_policy(UserName=name, PolicyArn=policy)
    kept = call.properties.get("Policies", [])
    for policy in kept:
        iam.put_user_policy(
            UserName=name,
            PolicyName=policy["PolicyName"],
            PolicyDocument=document(policy["PolicyDocument"]),
        )
    names = {policy["PolicyName"] for policy in kept}
    for policy in call.previous.get("Policies", []):
        if policy["PolicyName"] not in names:
            with absent_is_fine():
                iam.delete_user_policy(UserName=name, PolicyName=policy["PolicyName"])
    return Made(name, {"Arn": iam.get_user(UserName=name)["User"]["Arn"]})


def _user_delete(call: Call) -> None:
    iam, name = call.client("iam"), call.physical
    with absent_is_fine():
        for policy in iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
            iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
        for policy_name in iam.list_user_policies(UserName=name)["PolicyNames"]:
            iam.delete_user_policy(UserName=name, PolicyName=policy_name)
        iam.delete_user(UserName=name)


def _key_create(call: Call) -> Made:
    only(call, "UserName", "Serial", "Status")
    user = call.properties["UserName"]
    made = call.client("iam").create_access_key(UserName=user)["AccessKey"]
    call.made(made["AccessKeyId"])
    if call.properties.get("Status") == "Inactive":
        call.client("iam").update_access_key(
            UserName=user, AccessKeyId=made["AccessKeyId"], Status="Inactive"
        )
    attributes = {"Id": made["AccessKeyId"], "SecretAccessKey": made["SecretAccessKey"]}
    return Made(made["AccessKeyId"], attributes)


def _key_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("iam").delete_access_key(
            UserName=call.properties["UserName"], AccessKeyId=call.physical
        )


def _unchangeable(call: Call) -> Made:
    raise ResourceFailed(f"The sandbox does not change {call.kind} in place")


# CodeConnections.


def _connection(service: str) -> Provider:
    def create(call: Call) -> Made:
        found = call.client(service).create_connection(
            **pick(call.properties, "ConnectionName", "ProviderType", "HostArn"),
            **present(Tags=pairs(call.tags)),
        )["ConnectionArn"]
        call.made(found)
        return described(call)

    def update(call: Call) -> Made:
        CONNECTIONS.apply(call.client(service), call.physical, call)
        return described(call)

    def delete(call: Call) -> None:
        with absent_is_fine():
            call.client(service).delete_connection(ConnectionArn=call.physical)

    def described(call: Call) -> Made:
        found = call.client(service).get_connection(ConnectionArn=call.physical)["Connection"]
        names = ("ConnectionArn", "ConnectionStatus", "OwnerAccountId")
        return Made(call.physical, pick(found, *names))

    attributes = ("ConnectionArn", "ConnectionStatus", "OwnerAccountId")
    return Provider(create, delete, update, attributes=attributes)


# Service Catalog.

CATALOG = "servicecatalog"


def _catalog_tags(call: Call) -> Json:
    """Return the arguments that change the tags of a portfolio or a product."""
    gone = [key for key in call.previous_tags if key not in call.tags]
    new = {k: v for k, v in call.tags.items() if call.previous_tags.get(k) != v}
    return present(AddTags=pairs(new), RemoveTags=gone)


def _portfolio_create(call: Call) -> Made:
    found = call.client(CATALOG).create_portfolio(
        **call.properties, **present(Tags=pairs(call.tags)), IdempotencyToken=str(uuid.uuid4())
    )["PortfolioDetail"]["Id"]
    call.made(found)
    return Made(found, {"Id": found, "PortfolioName": call.properties["DisplayName"]})


def _portfolio_update(call: Call) -> Made:
    call.client(CATALOG).update_portfolio(
        Id=call.physical, **call.properties, **_catalog_tags(call)
    )
    name = call.properties["DisplayName"]
    return Made(call.physical, {"Id": call.physical, "PortfolioName": name})


def _portfolio_delete(call: Call) -> None:
    with absent_is_fine():
        call.client(CATALOG).delete_portfolio(Id=call.physical)


_PRODUCT = (
    "AcceptLanguage",
    "Description",
    "Distributor",
    "Name",
    "Owner",
    "SupportDescription",
    "SupportEmail",
    "SupportUrl",
)


def _product_create(call: Call) -> Made:
    client, given = call.client(CATALOG), call.properties
    only(call, *_PRODUCT, *_ARTIFACTS)
    artifacts = given.get("ProvisioningArtifactParameters", [])
    answer = client.create_product(
        **pick(given, *_PRODUCT),
        ProductType=given.get("ProductType", "CLOUD_FORMATION_TEMPLATE"),
        **present(Tags=pairs(call.tags)),
        ProvisioningArtifactParameters=_artifact(artifacts[0]),
        IdempotencyToken=str(uuid.uuid4()),
    )
    found = answer["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
    call.made(found)
    for each in artifacts[1:]:
        client.create_provisioning_artifact(
            ProductId=found, Parameters=_artifact(each), IdempotencyToken=str(uuid.uuid4())
        )
    return _product(call, found)


_ARTIFACTS = ("ProductType", "ProvisioningArtifactParameters", "ReplaceProvisioningArtifacts")


def _product_update(call: Call) -> Made:
    only(call, *_PRODUCT, *_ARTIFACTS)
    client, given, product = call.client(CATALOG), call.properties, call.physical
    client.update_product(Id=product, **pick(given, *_PRODUCT), **_catalog_tags(call))
    old = call.previous.get("ProvisioningArtifactParameters", [])
    new = given.get("ProvisioningArtifactParameters", [])
    replace = given.get("ReplaceProvisioningArtifacts", False)
    rows = client.list_provisioning_artifacts(ProductId=product)["ProvisioningArtifactDetails"]
    ids = {row["Name"]: row["Id"] for row in rows}
    same = [] if replace else [key for key in map(_key, new) if key in map(_key, old)]
    # New versions first: a product is never without one.
    gone = [ids[each["Name"]] for each in old if _key(each) not in same and each["Name"] in ids]
    for each in new:
        if _key(each) not in same:
            client.create_provisioning_artifact(
                ProductId=product, Parameters=_artifact(each), IdempotencyToken=str(uuid.uuid4())
            )
        elif each.get("Description") not in {
            e.get("Description") for e in old if _key(e) == _key(each)
        }:
            client.update_provisioning_artifact(
                ProductId=product,
                ProvisioningArtifactId=ids[each["Name"]],
                Description=each.get("Description", ""),
            )
    # What the template no longer lists is deleted, also without ReplaceProvisioningArtifacts:
    # that only decides whether those that stay keep their ids.
    for identity in gone:
        with absent_is_fine():
            client.delete_provisioning_artifact(ProductId=product, ProvisioningArtifactId=identity)
    return _product(call, product)


def _key(artifact: Json) -> tuple[str, str]:
    return artifact.get("Name", ""), artifact["Info"].get("LoadTemplateFromURL", "")


def _artifact(given: Json) -> Json:
    return {"Type": "CLOUD_FORMATION_TEMPLATE", **given}


def _product(call: Call, found: str) -> Made:
    rows = call.client(CATALOG).list_provisioning_artifacts(ProductId=found)
    details = rows["ProvisioningArtifactDetails"]
    return Made(
        found,
        {
            "Id": found,
            "ProductName": call.properties["Name"],
            "ProvisioningArtifactIds": ",".join(row["Id"] for row in details),
            "ProvisioningArtifactNames": ",".join(row["Name"] for row in details),
        },
    )


def _product_delete(call: Call) -> None:
    with absent_is_fine():
        call.client(CATALOG).delete_product(Id=call.physical)


def _inside_create(call: Call) -> Made:
    given = pick(call.properties, "PortfolioId", "ProductId", "SourcePortfolioId")
    call.client(CATALOG).associate_product_with_portfolio(**given)
    found = f"{given['PortfolioId']}|{given['ProductId']}"
    call.made(found)
    return Made(found, {})


def _inside_delete(call: Call) -> None:
    with absent_is_fine():
        call.client(CATALOG).disassociate_product_from_portfolio(
            **pick(call.properties, "PortfolioId", "ProductId")
        )


def _grant_create(call: Call) -> Made:
    given = pick(call.properties, "PortfolioId", "PrincipalARN", "PrincipalType")
    call.client(CATALOG).associate_principal_with_portfolio(**given)
    found = f"{given['PrincipalARN']}|{given['PortfolioId']}"
    call.made(found)
    return Made(found, {})


def _grant_delete(call: Call) -> None:
    with absent_is_fine():
        call.client(CATALOG).disassociate_principal_from_portfolio(
            **pick(call.properties, "PortfolioId", "PrincipalARN")
        )


def _launch_create(call: Call) -> Made:
    given = call.properties
    found = call.client(CATALOG).create_constraint(
        **pick(given, "PortfolioId", "ProductId", "Description"),
        Type="LAUNCH",
        Parameters=json.dumps(pick(given, "RoleArn", "LocalRoleName")),
        IdempotencyToken=str(uuid.uuid4()),
    )["ConstraintDetail"]["ConstraintId"]
    call.made(found)
    return Made(found, {"Id": found})


def _launch_update(call: Call) -> Made:
    given = call.properties
    call.client(CATALOG).update_constraint(
        Id=call.physical,
        Description=given.get("Description", ""),
        Parameters=json.dumps(pick(given, "RoleArn", "LocalRoleName")),
    )
    return Made(call.physical, {"Id": call.physical})


def _launch_delete(call: Call) -> None:
    with absent_is_fine():
        call.client(CATALOG).delete_constraint(Id=call.physical)


# SageMaker.


def _repository_create(call: Call) -> Made:
    found = call.client("sagemaker").create_code_repository(
        CodeRepositoryName=call.name,
        GitConfig=call.properties["GitConfig"],
        **present(Tags=pairs(call.tags)),
    )["CodeRepositoryArn"]
    call.made(found)
    return Made(found, {"CodeRepositoryName": call.name, "Id": found})


def _repository_update(call: Call) -> Made:
    client, before = call.client("sagemaker"), call.previous["GitConfig"]
    config = call.properties["GitConfig"]
    if {**before, "SecretArn": None} != {**config, "SecretArn": None}:
        raise ResourceFailed(
            handled("Only SecretArn of a code repository's GitConfig can change", "NotUpdatable")
        )
    if call.changed("GitConfig"):
        client.update_code_repository(
            CodeRepositoryName=last_part(call), GitConfig=pick(config, "SecretArn")
        )
    SAGEMAKER.apply(client, call.physical, call)
    return Made(call.physical, {"CodeRepositoryName": last_part(call), "Id": call.physical})


def _repository_delete(call: Call) -> None:
    with absent_is_fine():
        call.client("sagemaker").delete_code_repository(CodeRepositoryName=last_part(call))


def _project_create(call: Call) -> Made:
    client, given = call.client("sagemaker"), call.properties
    only(call, "ProjectName", "ProjectDescription", "ServiceCatalogProvisioningDetails")
    found = client.create_project(**given, **present(Tags=pairs(call.tags)))["ProjectArn"]
    call.made(found)

    def look() -> Any:
        described = client.describe_project(ProjectName=given["ProjectName"])
        return None if described["ProjectStatus"].endswith("InProgress") else described

    described = call.wait(look)
    if described["ProjectStatus"] != "CreateCompleted":
        detail = described.get("ServiceCatalogProvisionedProductDetails", {})
        why = detail.get("ProvisionedProductStatusMessage") or described["ProjectStatus"]
        raise ResourceFailed(handled(why, "NotStabilized"))
    return Made(
        found,
        {
            "ProjectArn": found,
            "ProjectId": described["ProjectId"],
            "ProjectStatus": described["ProjectStatus"],
            "CreationTime": described["CreationTime"].isoformat(),
        },
    )


def _project_delete(call: Call) -> None:
    client, name = call.client("sagemaker"), last_part(call)
    with absent_is_fine():
        if client.describe_project(ProjectName=name)["ProjectStatus"] == "DeleteCompleted":
            return
        client.delete_project(ProjectName=name)

        def look() -> Any:
            described = client.describe_project(ProjectName=name)
            return None if described["ProjectStatus"].endswith("InProgress") else described

        ended = call.wait(look)["ProjectStatus"]
        if ended != "DeleteCompleted":
            raise ResourceFailed(handled(f"the project is in status {ended}", "NotStabilized"))


PROVIDERS: dict[str, Provider] = {
    "AWS::CodeConnections::Connection": _connection("codeconnections"),
    "AWS::CodeStarConnections::Connection": _connection("codestar-connections"),
    "AWS::Events::Rule": Provider(_rule_create, _rule_delete, _rule_update, Name("Name"), ("Arn",)),
    "AWS::IAM::AccessKey": Provider(
        _key_create, _key_delete, _unchangeable, attributes=("Id", "SecretAccessKey")
    ),
    "AWS::IAM::OIDCProvider": Provider(
        _oidc_create, _oidc_delete, _oidc_update, attributes=("Arn",)
    ),
    "AWS::IAM::User": Provider(
        _user_create, _user_delete, _user_update, Name("UserName"), ("Arn",)
    ),
    "AWS::Lambda::EventInvokeConfig": Provider(
        _invoke_config_put, _invoke_config_delete, _invoke_config_put
    ),
    "AWS::Lambda::Function": Provider(
        _function_create, _function_delete, _function_update, Name("FunctionName"), ("Arn",)
    ),
    "AWS::Lambda::LayerVersion": Provider(
        _layer_create,
        _layer_delete,
        None,
        Name("LayerName", 140, "{logical}-{random}"),
        ("LayerVersionArn",),
    ),
    "AWS::Lambda::Permission": Provider(
        _permission_create, _permission_delete, None, Name("", 100), ("Id",)
    ),
    "AWS::SageMaker::CodeRepository": Provider(
        _repository_create,
        _repository_delete,
        _repository_update,
        Name("CodeRepositoryName", 63, "{logical}-{random}"),
        ("CodeRepositoryName", "Id"),
    ),
    "AWS::SageMaker::Project": Provider(
        _project_create,
        _project_delete,
        _unchangeable,
        attributes=("ProjectArn", "ProjectId", "ProjectStatus", "CreationTime"),
    ),
    "AWS::SecretsManager::ResourcePolicy": Provider(
        _secret_policy_put, _secret_policy_delete, _secret_policy_put, attributes=("Id",)
    ),
    "AWS::SecretsManager::Secret": Provider(
        _secret_create,
        _secret_delete,
        _secret_update,
        Name("Name", 512, "{logical}-{random}"),
        ("Id",),
    ),
    "AWS::ServiceCatalog::CloudFormationProduct": Provider(
        _product_create,
        _product_delete,
        _product_update,
        attributes=("Id", "ProductName", "ProvisioningArtifactIds", "ProvisioningArtifactNames"),
    ),
    "AWS::ServiceCatalog::LaunchRoleConstraint": Provider(
        _launch_create, _launch_delete, _launch_update, attributes=("Id",)
    ),
    "AWS::ServiceCatalog::Portfolio": Provider(
        _portfolio_create,
        _portfolio_delete,
        _portfolio_update,
        attributes=("Id", "PortfolioName"),
    ),
    "AWS::ServiceCatalog::PortfolioPrincipalAssociation": Provider(_grant_create, _grant_delete),
    "AWS::ServiceCatalog::PortfolioProductAssociation": Provider(_inside_create, _inside_delete),
}
