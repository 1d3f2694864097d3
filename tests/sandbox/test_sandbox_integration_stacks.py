"""The resource types between an account and GitHub: one stack made, changed, used and deleted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cloudformation_cases import Deployer, new_name, resource
from function_cases import ACCOUNT, EVERYTHING, Wired, archive, trust, until
from sandbox_cases import BUCKET, REGION
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

CAPABLE: dict[str, Any] = {"Capabilities": ["CAPABILITY_NAMED_IAM"]}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("stacks"), "eu-west-1") as server:
        Wired(server.environment()).prepare()
        yield server


@pytest.fixture(scope="module")
def aws(server: Server) -> Deployer:
    return Deployer(server.environment())


@pytest.fixture(scope="module")
def wired(server: Server) -> Wired:
    return Wired(server.environment())


def allow(action: Any, target: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": action, "Resource": target}
    return {"Version": "2012-10-17", "Statement": [statement]}


def get(name: str, attribute: str = "Arn") -> dict[str, Any]:
    return {"Fn::GetAtt": [name, attribute]}


def trigger(code: str, word: str) -> dict[str, Any]:
    """Return a template with everything between an approval and a function."""
    return {
        "Resources": {
            "Dead": resource("SQS::Queue"),
            "Role": resource(
                "IAM::Role",
                AssumeRolePolicyDocument=json.loads(trust("lambda.amazonaws.com")),
                Policies=[
                    {"PolicyName": "p", "PolicyDocument": allow(["logs:*", "sqs:SendMessage"], "*")}
                ],
            ),
            "Layer": resource(
                "Lambda::LayerVersion",
                Content={"S3Bucket": BUCKET, "S3Key": "layer.zip"},
                CompatibleRuntimes=["python3.13"],
            ),
            "Function": resource(
                "Lambda::Function",
                FunctionName="trigger",
                Runtime="python3.13",
                Architectures=["arm64"],
                Handler="handler.handler",
                Role=get("Role"),
                Code={"S3Bucket": BUCKET, "S3Key": code},
                Layers=[{"Ref": "Layer"}],
                Environment={"Variables": {"WORD": word}},
                Tags=[{"Key": "a", "Value": "b"}],
            ),
            "Tries": resource(
                "Lambda::EventInvokeConfig",
                FunctionName={"Ref": "Function"},
                Qualifier="$LATEST",
                MaximumRetryAttempts=0,
                DestinationConfig={"OnFailure": {"Destination": get("Dead")}},
            ),
            "Rule": resource(
                "Events::Rule",
                Name="approved",
                EventPattern={
                    "source": ["aws.sagemaker"],
                    "detail": {"ModelApprovalStatus": ["Approved"]},
                },
                Targets=[{"Id": "function", "Arn": get("Function")}],
            ),
            "MayInvoke": resource(
                "Lambda::Permission",
                FunctionName={"Ref": "Function"},
                Action="lambda:InvokeFunction",
                Principal="events.amazonaws.com",
                SourceArn=get("Rule"),
            ),
        }
    }


def test_an_approval_runs_the_code_of_a_deployed_and_updated_stack(
    aws: Deployer, wired: Wired
) -> None:
    code = "import os, shared\ndef handler(e, c):\n    print(os.environ['WORD'], shared.MARK, {!r})"
    wired.put("one.zip", archive(handler=code.format("first")))
    wired.put("two.zip", archive(handler=code.format("second")))
    wired.put("layer.zip", archive(**{"python/shared.py": "MARK = 'layered'"}))
    stack = aws.deploy(trigger("one.zip", "hello"), **CAPABLE)
    assert aws.stack(stack)["StackStatus"] == "CREATE_COMPLETE", aws.reasons(stack, "CREATE_FAILED")
    package = wired.version()
    wired.approve(package)
    until(lambda: "hello layered first" in wired.log("trigger"))
    assert aws.update(stack, trigger("two.zip", "bye"), **CAPABLE)["StackStatus"] == (
        "UPDATE_COMPLETE"
    )
    wired.approve(package)
    until(lambda: "bye layered second" in wired.log("trigger"))
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert wired.functions.list_functions()["Functions"] == []
    assert wired.events.list_rules()["Rules"] == []
    assert wired.functions.list_layers()["Layers"] == []


def test_a_rule_that_eventbridge_refuses_fails_the_stack(aws: Deployer) -> None:
    rule = resource("Events::Rule", EventPattern={"source": []})
    stack = aws.deploy({"Resources": {"Rule": rule}})
    assert "Empty arrays are not allowed" in aws.reasons(stack, "CREATE_FAILED")["Rule"]


def test_a_secret_keeps_what_a_person_has_put_into_it(aws: Deployer) -> None:
    def template(text: str) -> dict[str, Any]:
        nobody = {"AWS": f"arn:aws:iam::{ACCOUNT}:role/nobody"}
        statement = {"Effect": "Deny", "Principal": nobody, "Action": "*", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        return {
            "Resources": {
                "Secret": resource("SecretsManager::Secret", Name="s/github", Description=text),
                "Policy": resource(
                    "SecretsManager::ResourcePolicy",
                    SecretId={"Ref": "Secret"},
                    ResourcePolicy=policy,
                ),
            }
        }

    secrets = aws.client("secretsmanager")
    stack = aws.deploy(template("one"))
    assert aws.stack(stack)["StackStatus"] == "CREATE_COMPLETE", aws.raw_events(stack)
    with pytest.raises(secrets.exceptions.ResourceNotFoundException):
        secrets.get_secret_value(SecretId="s/github")
    secrets.put_secret_value(SecretId="s/github", SecretString="token")
    aws.update(stack, template("two"))
    assert secrets.get_secret_value(SecretId="s/github")["SecretString"] == "token"
    assert secrets.describe_secret(SecretId="s/github")["Description"] == "two"
    assert "Deny" in secrets.get_resource_policy(SecretId="s/github")["ResourcePolicy"]
    aws.delete(stack)
    assert secrets.list_secrets()["SecretList"] == []


def test_sign_in_resources_are_made_and_removed(aws: Deployer) -> None:
    template = {
        "Resources": {
            "Provider": resource(
                "IAM::OIDCProvider",
                Url="https://token.actions.githubusercontent.com",
                ClientIdList=["sts.amazonaws.com"],
            ),
            "User": resource(
                "IAM::User",
                UserName="churn-github",
                Policies=[{"PolicyName": "p", "PolicyDocument": allow("s3:GetObject", "*")}],
            ),
            "Key": resource("IAM::AccessKey", UserName={"Ref": "User"}),
            "Secret": resource(
                "SecretsManager::Secret",
                SecretString={"Fn::Join": [":", [{"Ref": "Key"}, get("Key", "SecretAccessKey")]]},
            ),
            "Connection": resource(
                "CodeConnections::Connection", ConnectionName="c", ProviderType="GitHub"
            ),
            "Repository": resource(
                "SageMaker::CodeRepository",
                CodeRepositoryName="churn",
                GitConfig={"RepositoryUrl": "https://github.com/acme/churn"},
            ),
        },
        "Outputs": {
            "Connection": {"Value": get("Connection", "ConnectionArn")},
            "Provider": {"Value": get("Provider")},
        },
    }
    stack = aws.deploy(template, **CAPABLE)
    assert aws.stack(stack)["StackStatus"] == "CREATE_COMPLETE", aws.raw_events(stack)
    outputs = aws.outputs(stack)
    assert outputs["Connection"] == aws.physical(stack)["Connection"]
    assert outputs["Provider"] == (
        f"arn:aws:iam::{ACCOUNT}:oidc-provider/token.actions.githubusercontent.com"
    )
    secret = aws.client("secretsmanager").get_secret_value(SecretId=aws.physical(stack)["Secret"])
    key, _, value = secret["SecretString"].partition(":")
    assert key == aws.physical(stack)["Key"] and len(value) > 30
    assert aws.iam.list_user_policies(UserName="churn-github")["PolicyNames"] == ["p"]
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"
    assert aws.iam.list_users()["Users"] == []
    assert aws.iam.list_open_id_connect_providers()["OpenIDConnectProviderList"] == []
    assert aws.client("codeconnections").list_connections()["Connections"] == []


def catalog(about: str, version: str = "1.0", key: str = "p.json") -> dict[str, Any]:
    """Return a template with a product in one version."""
    return {
        "Resources": {
            "Launch": resource(
                "IAM::Role",
                RoleName="sm-mlops-launch",
                AssumeRolePolicyDocument=json.loads(trust("servicecatalog.amazonaws.com")),
                Policies=[{"PolicyName": "p", "PolicyDocument": EVERYTHING}],
            ),
            "Studio": resource(
                "IAM::Role",
                AssumeRolePolicyDocument=json.loads(trust("sagemaker.amazonaws.com")),
            ),
            "Portfolio": resource(
                "ServiceCatalog::Portfolio", DisplayName="sm-mlops", ProviderName="us"
            ),
            "Product": resource(
                "ServiceCatalog::CloudFormationProduct",
                Name="repo",
                Owner="us",
                Description=about,
                Tags=[{"Key": "sagemaker:studio-visibility", "Value": "true"}],
                ProvisioningArtifactParameters=[
                    {
                        "Name": version,
                        "Info": {
                            "LoadTemplateFromURL": f"https://{BUCKET}.s3.{REGION}.amazonaws.com/{key}"
                        },
                    }
                ],
            ),
            "Inside": resource(
                "ServiceCatalog::PortfolioProductAssociation",
                PortfolioId={"Ref": "Portfolio"},
                ProductId={"Ref": "Product"},
            ),
            "Constraint": {
                **resource(
                    "ServiceCatalog::LaunchRoleConstraint",
                    PortfolioId={"Ref": "Portfolio"},
                    ProductId={"Ref": "Product"},
                    RoleArn=get("Launch"),
                ),
                "DependsOn": "Inside",
            },
            "Grant": resource(
                "ServiceCatalog::PortfolioPrincipalAssociation",
                PortfolioId={"Ref": "Portfolio"},
                PrincipalARN=get("Studio"),
                PrincipalType="IAM",
            ),
        },
    }


def test_a_product_comes_from_a_template_and_makes_projects(aws: Deployer) -> None:
    product = {
        "Parameters": {
            "SageMakerProjectName": {"Type": "String"},
            "SageMakerProjectId": {"Type": "String"},
        },
        "Resources": {
            "Group": resource(
                "SageMaker::ModelPackageGroup",
                ModelPackageGroupName={"Ref": "SageMakerProjectName"},
            )
        },
    }
    aws.put("p.json", json.dumps(product))
    stack = aws.deploy(catalog("one"), **CAPABLE)
    assert aws.stack(stack)["StackStatus"] == "CREATE_COMPLETE", aws.raw_events(stack)
    first = aws.physical(stack)["Product"]
    client = aws.client("servicecatalog")
    aws.update(stack, catalog("two"), **CAPABLE)
    assert aws.stack(stack)["StackStatus"] == "UPDATE_COMPLETE", aws.raw_events(stack)
    [row] = client.list_provisioning_artifacts(ProductId=first)["ProvisioningArtifactDetails"]
    details = {"ProductId": first, "ProvisioningArtifactId": row["Id"]}
    aws.sagemaker.create_project(ProjectName="churn", ServiceCatalogProvisioningDetails=details)
    until(lambda: _project(aws) == "CreateCompleted")
    aws.sagemaker.delete_project(ProjectName="churn")
    until(lambda: _project(aws) == "DeleteCompleted")
    aws.put("q.json", json.dumps(product))
    aws.update(stack, catalog("two", "2.0", "q.json"), **CAPABLE)
    assert "does not change the content" in aws.reasons(stack, "UPDATE_FAILED")["Product"]
    assert aws.delete(stack)["StackStatus"] == "DELETE_COMPLETE"


def _project(aws: Deployer) -> str:
    return str(aws.sagemaker.describe_project(ProjectName="churn")["ProjectStatus"])


@pytest.mark.parametrize("kind", ["StepFunctions::StateMachine", "DynamoDB::Table", "KMS::Key"])
def test_a_type_that_no_template_of_ours_has_is_refused_by_name(aws: Deployer, kind: str) -> None:
    body = json.dumps({"Resources": {"It": resource(kind)}})
    words = rf"does not implement these resource types: \[AWS::{kind}\]"
    with pytest.raises(Exception, match=words):
        aws.cfn.create_stack(StackName=new_name(), TemplateBody=body)
