"""Service Catalog, SageMaker projects and connections: what bootstrap sets up and a person uses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cloudformation_cases import Deployer, new_name, resource
from function_cases import ACCOUNT, EVERYTHING, MAY, Wired, until
from sandbox_cases import BUCKET, REGION, policy, there
from sm_mlops import platform as package
from sm_mlops.sandbox import Server

pytestmark = pytest.mark.slow

TEMPLATE = {
    "Parameters": {
        "SageMakerProjectName": {"Type": "String"},
        "SageMakerProjectId": {"Type": "String"},
        "Fail": {"Type": "String", "Default": "no"},
    },
    "Conditions": {"Fails": {"Fn::Equals": [{"Ref": "Fail"}, "yes"]}},
    "Resources": {
        "Group": resource(
            "SageMaker::ModelPackageGroup", ModelPackageGroupName={"Ref": "SageMakerProjectName"}
        ),
        "Bad": {
            **resource("SQS::QueuePolicy", Queues=["http://127.0.0.1/none"], PolicyDocument={}),
            "Condition": "Fails",
        },
    },
    "Outputs": {"Id": {"Value": {"Ref": "SageMakerProjectId"}}},
}
BROKEN = '{"Resources": {"X": {"Type": "AWS::No::Such"}}}'


def launched_by(role: str) -> str:
    return json.dumps({"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{role}"})


class Shop(Wired):
    """A world with a portfolio that has a product."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        super().__init__(variables)
        self.catalog = self.client("servicecatalog")

    def template(self, text: Any = TEMPLATE, key: str = "project.json") -> str:
        self.put(key, text if isinstance(text, str) else json.dumps(text))
        return f"{self.url}/{BUCKET}/{key}"

    def open(self) -> Shop:
        self.prepare()
        self.role("launch", EVERYTHING, "servicecatalog.amazonaws.com")
        self.portfolio = self.catalog.create_portfolio(DisplayName="sm-mlops", ProviderName="us")[
            "PortfolioDetail"
        ]["Id"]
        made = self.catalog.create_product(
            Name="repo",
            Owner="us",
            ProductType="CLOUD_FORMATION_TEMPLATE",
            Tags=[{"Key": "sagemaker:studio-visibility", "Value": "true"}],
            ProvisioningArtifactParameters=self.version("1.0"),
        )
        self.product = made["ProductViewDetail"]["ProductViewSummary"]["ProductId"]
        self.artifact = made["ProvisioningArtifactDetail"]["Id"]
        pair = {"PortfolioId": self.portfolio, "ProductId": self.product}
        self.catalog.associate_product_with_portfolio(**pair)
        self.catalog.create_constraint(**pair, Type="LAUNCH", Parameters=launched_by("launch"))
        return self

    def version(self, name: str, text: Any = TEMPLATE) -> Any:  # type: ignore[override]
        url = self.template(text)
        return {
            "Name": name,
            "Type": "CLOUD_FORMATION_TEMPLATE",
            "Info": {"LoadTemplateFromURL": url},
        }

    def project(self, name: str, **given: str) -> dict[str, Any]:
        self.sagemaker.create_project(
            ProjectName=name,
            ServiceCatalogProvisioningDetails={
                "ProductId": self.product,
                "ProvisioningArtifactId": self.artifact,
                "ProvisioningParameters": [{"Key": k, "Value": v} for k, v in given.items()],
            },
        )
        return self.settled_project(name)

    def output(self, project: dict[str, Any]) -> str:
        """Return the output of a project's stack."""
        made = project["ServiceCatalogProvisionedProductDetails"]["ProvisionedProductId"]
        stacks = self.client("cloudformation").describe_stacks(StackName=f"SC-{ACCOUNT}-{made}")
        return str(stacks["Stacks"][0]["Outputs"][0]["OutputValue"])

    def settled_project(self, name: str) -> dict[str, Any]:
        def look() -> dict[str, Any] | None:
            found = self.sagemaker.describe_project(ProjectName=name)
            return None if found["ProjectStatus"].endswith("InProgress") else dict(found)

        return until(look)

    def session(self, role: str) -> Shop:
        """Return the same shop as a role sees it."""
        import boto3

        found = self.client("sts").assume_role(RoleArn=role, RoleSessionName="person")[
            "Credentials"
        ]
        other = Shop(self.variables)
        other._session = boto3.session.Session(
            found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"], "eu-west-1"
        )
        other.catalog, other.sagemaker = other.client("servicecatalog"), other.client("sagemaker")
        return other


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    with Server(tmp_path, "eu-west-1") as server:
        yield Shop(server.environment()).open()


def test_a_project_is_what_the_product_makes(shop: Shop) -> None:
    found = shop.project("churn")
    assert found["ProjectStatus"] == "CreateCompleted" and found["ProjectId"].startswith("p-")
    groups = shop.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert "churn" in [group["ModelPackageGroupName"] for group in groups]
    assert shop.output(found) == found["ProjectId"]
    listed = shop.sagemaker.list_projects()["ProjectSummaryList"]
    assert [row["ProjectName"] for row in listed] == ["churn"]
    group = next(g for g in groups if g["ModelPackageGroupName"] == "churn")
    tags = shop.sagemaker.list_tags(ResourceArn=group["ModelPackageGroupArn"])["Tags"]
    assert {"Key": "sagemaker:project-name", "Value": "churn"} in tags


def test_a_deleted_project_takes_everything_with_it_and_leaves_its_name_free(shop: Shop) -> None:
    shop.project("churn")
    with pytest.raises(ClientError, match="already exists"):
        shop.project("churn")
    shop.sagemaker.delete_project(ProjectName="churn")
    assert shop.settled_project("churn")["ProjectStatus"] == "DeleteCompleted"
    assert shop.catalog.search_provisioned_products()["ProvisionedProducts"] == []
    groups = shop.sagemaker.list_model_package_groups()["ModelPackageGroupSummaryList"]
    assert "churn" not in [group["ModelPackageGroupName"] for group in groups]
    assert shop.project("churn")["ProjectStatus"] == "CreateCompleted"


def test_a_project_that_fails_says_why(shop: Shop) -> None:
    found = shop.project("churn", Fail="yes")
    assert found["ProjectStatus"] == "CreateFailed"
    details = found["ServiceCatalogProvisionedProductDetails"]
    assert details["ProvisionedProductStatusMessage"].startswith("Bad: ")


def test_a_project_may_come_from_a_template_in_s3(shop: Shop) -> None:
    role = shop.role("maker", EVERYTHING, "cloudformation.amazonaws.com")
    provider = {"TemplateName": "t", "TemplateURL": shop.template(), "RoleARN": role}
    if not provider["TemplateURL"].startswith("https"):
        provider["TemplateURL"] = f"https://{BUCKET}.s3.eu-west-1.amazonaws.com/project.json"
    shop.sagemaker.create_project(
        ProjectName="churn", TemplateProviders=[{"CfnTemplateProvider": provider}]
    )
    found = shop.settled_project("churn")
    assert found["ProjectStatus"] == "CreateCompleted"
    detail = found["TemplateProviderDetails"][0]["CfnTemplateProviderDetail"]
    assert detail["StackDetail"]["Name"] == f"sagemaker-churn-{found['ProjectId']}"
    shop.sagemaker.delete_project(ProjectName="churn")
    assert shop.settled_project("churn")["ProjectStatus"] == "DeleteCompleted"


def test_only_who_is_granted_the_portfolio_makes_projects(shop: Shop) -> None:
    studio = shop.role("studio", EVERYTHING)
    trust = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"}
    shop.iam.update_assume_role_policy(RoleName="studio", PolicyDocument=policy(trust))
    person = shop.session(studio)
    person.product, person.artifact = shop.product, shop.artifact
    with pytest.raises(ClientError, match="no launch paths"):
        person.project("churn")
    shop.catalog.associate_principal_with_portfolio(
        PortfolioId=shop.portfolio, PrincipalARN=studio, PrincipalType="IAM"
    )
    assert person.project("churn")["ProjectStatus"] == "CreateCompleted"


def test_a_new_version_leaves_the_old_one_and_is_the_template_of_its_time(shop: Shop) -> None:
    changed = json.loads(json.dumps(TEMPLATE))
    changed["Outputs"]["Id"]["Value"] = "second"
    made = shop.catalog.create_provisioning_artifact(
        ProductId=shop.product, Parameters=shop.version("2.0", changed)
    )["ProvisioningArtifactDetail"]
    names = [
        row["Name"]
        for row in shop.catalog.list_provisioning_artifacts(ProductId=shop.product)[
            "ProvisioningArtifactDetails"
        ]
    ]
    assert names == ["1.0", "2.0"]
    first = shop.project("first")
    assert shop.output(first) == first["ProjectId"]
    shop.catalog.update_provisioning_artifact(
        ProductId=shop.product, ProvisioningArtifactId=made["Id"], Active=False
    )
    shop.artifact = made["Id"]
    with pytest.raises(ClientError, match="not active"):
        shop.project("second")


def test_a_template_is_as_long_as_one_in_s3_may_be_and_read_with_the_launch_role(
    shop: Shop,
) -> None:
    long = {**TEMPLATE, "Metadata": {"Comment": "x" * 60_000}}
    made = shop.catalog.create_provisioning_artifact(
        ProductId=shop.product, Parameters=shop.version("3.0", long)
    )["ProvisioningArtifactDetail"]
    shop.artifact = made["Id"]
    found = shop.project("long")
    assert shop.output(found) == found["ProjectId"]
    rest = {"Effect": "Allow", "Action": ["cloudformation:*", "sagemaker:*"], "Resource": "*"}
    marked = {"StringEquals": {"s3:ExistingObjectTag/servicecatalog:provisioning": "true"}}
    reads = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*", "Condition": marked}
    for statements, status in (([rest], "CreateFailed"), ([rest, reads], "CreateCompleted")):
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        shop.iam.put_role_policy(RoleName="launch", PolicyName="p", PolicyDocument=document)
        found = shop.project(f"read-{status.lower()}")
        assert found["ProjectStatus"] == status, found


def test_what_is_in_use_cannot_be_deleted(shop: Shop) -> None:
    pair = {"PortfolioId": shop.portfolio, "ProductId": shop.product}
    for call, given in (
        (shop.catalog.delete_portfolio, {"Id": shop.portfolio}),
        (shop.catalog.delete_product, {"Id": shop.product}),
        (shop.catalog.disassociate_product_from_portfolio, pair),
    ):
        with pytest.raises(shop.catalog.exceptions.ResourceInUseException):
            call(**given)
    rows = shop.catalog.list_constraints_for_portfolio(PortfolioId=shop.portfolio)
    for row in rows["ConstraintDetails"]:
        shop.catalog.delete_constraint(Id=row["ConstraintId"])
    shop.catalog.disassociate_product_from_portfolio(**pair)
    shop.catalog.delete_product(Id=shop.product)
    shop.catalog.delete_portfolio(Id=shop.portfolio)
    assert shop.catalog.list_portfolios()["PortfolioDetails"] == []


def test_what_the_catalog_does_not_accept_is_refused(shop: Shop) -> None:
    with pytest.raises(ClientError, match="Invalid templateBody"):
        shop.catalog.create_provisioning_artifact(
            ProductId=shop.product, Parameters=shop.version("x", BROKEN)
        )
    shop.role("nobody", MAY, "lambda.amazonaws.com")
    with pytest.raises(ClientError, match="cannot assume the launch role"):
        shop.catalog.create_constraint(
            PortfolioId=shop.portfolio,
            ProductId=shop.product,
            Type="LAUNCH",
            Parameters=launched_by("nobody"),
        )


def test_what_no_caller_of_ours_uses_is_refused_by_name(shop: Shop) -> None:
    with pytest.raises(ClientError, match="does not implement servicecatalog:CreateTagOption"):
        shop.catalog.create_tag_option(Key="a", Value="b")
    with pytest.raises(ClientError, match="does not implement servicecatalog:ProvisionProduct"):
        shop.catalog.provision_product(ProductName="repo", ProvisionedProductName="p")
    pair = {"PortfolioId": shop.portfolio, "ProductId": shop.product}
    with pytest.raises(ClientError, match="does not implement TEMPLATE constraints"):
        shop.catalog.create_constraint(**pair, Type="TEMPLATE", Parameters='{"Rules": {}}')
    former = shop.client("codestar-connections")
    with pytest.raises(ClientError, match="does not implement codestar-connections:ListHosts"):
        former.list_hosts()
    with pytest.raises(ClientError, match="does not implement codeconnections:ListHosts"):
        shop.client("codeconnections").list_hosts()


def test_the_same_token_makes_one_portfolio(shop: Shop) -> None:
    ids = {
        shop.catalog.create_portfolio(DisplayName="x", ProviderName="us", IdempotencyToken="once")[
            "PortfolioDetail"
        ]["Id"]
        for _ in range(2)
    }
    assert len(ids) == 1


def test_projects_and_products_survive_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, "eu-west-1") as server:
        first = Shop(server.environment()).open()
        product = first.product
        first.sagemaker.create_project(
            ProjectName="churn", ServiceCatalogProvisioningDetails={"ProductId": product}
        )
    with Server(tmp_path, "eu-west-1") as server:
        shop = Shop(server.environment())
        assert shop.settled_project("churn")["ProjectStatus"] in (
            "CreateCompleted",
            "CreateFailed",
        ), "an operation cut short may fail, and never hangs"
        rows = shop.catalog.search_products_as_admin()["ProductViewDetails"]
        assert [row["ProductViewSummary"]["ProductId"] for row in rows] == [product]


# Connections and code repositories.


def test_a_connection_is_pending_until_a_person_completes_it(tmp_path: Path) -> None:
    with Server(tmp_path, "eu-west-1") as server:
        client = Wired(server.environment()).client("codeconnections")
        arn = client.create_connection(ProviderType="GitHub", ConnectionName="sm-mlops")[
            "ConnectionArn"
        ]
        assert arn.startswith("arn:aws:codeconnections:eu-west-1:123456789012:connection/")
        assert (
            client.get_connection(ConnectionArn=arn)["Connection"]["ConnectionStatus"] == "PENDING"
        )
        with pytest.raises(ClientError, match="already exists"):
            client.create_connection(ProviderType="GitHub", ConnectionName="sm-mlops")
        server.integrations.connections.complete("sm-mlops")
        (found,) = client.list_connections(ProviderTypeFilter="GitHub")["Connections"]
        assert found["ConnectionStatus"] == "AVAILABLE"
        client.delete_connection(ConnectionArn=arn)
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            client.get_connection(ConnectionArn=arn)


def test_the_platform_can_be_deployed_for_a_github_enterprise_server(
    tmp_path: Path,
) -> None:
    text = (package.FOLDER / "platform.yml").read_text(encoding="utf-8")
    host = f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:host/git-0123456789"
    given = {
        "TemplateVersion": "0.1.0",
        "AllowedOwners": "acme",
        "GitHost": "git.example.com",
        "GitHubApiUrl": "https://git.example.com/api/v3",
        "ConnectionHostArn": host,
    }
    with Server(tmp_path, REGION) as server:
        aws, wired, name = Deployer(server.environment()), Wired(server.environment()), new_name()
        wired.prepare()
        wired.put("platform.yml", text)
        aws.cfn.create_stack(
            StackName=name,
            TemplateURL=f"{server.url}/{BUCKET}/platform.yml",
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        ended = aws.settled(name)["StackStatus"]
        assert ended == "CREATE_COMPLETE", aws.reasons(name, "CREATE_FAILED")
        [made] = wired.client("codeconnections").list_connections()["Connections"]
    assert (made["HostArn"], made["ProviderType"]) == (host, "GitHubEnterpriseServer")
    assert made["ConnectionStatus"] == "PENDING"


def test_another_process_can_complete_a_connection_and_make_accounts(tmp_path: Path) -> None:
    from sm_mlops import sandbox

    sandbox.start(tmp_path, "eu-west-1")
    try:
        client = Wired(there(tmp_path)).client("codeconnections")
        client.create_connection(ProviderType="GitHub", ConnectionName="c")
        found = sandbox.control(tmp_path, "connections.complete", "c")
        assert found["ConnectionStatus"] == "AVAILABLE"
        sandbox.control(tmp_path, "github.accounts.add", "ada")
        assert sandbox.control(tmp_path, "github.accounts.token", "ada", "repo").startswith("ghp_")
        with pytest.raises(sandbox.SandboxError, match="no control"):
            sandbox.control(tmp_path, "server.close")
    finally:
        sandbox.stop(tmp_path)


def test_a_code_repository_keeps_its_address(shop: Shop) -> None:
    shop.sagemaker.create_code_repository(
        CodeRepositoryName="churn",
        GitConfig={"RepositoryUrl": "https://github.com/acme/churn", "Branch": "main"},
        Tags=[{"Key": "project", "Value": "churn"}],
    )
    with pytest.raises(ClientError, match="already existing"):
        shop.sagemaker.create_code_repository(
            CodeRepositoryName="churn", GitConfig={"RepositoryUrl": "https://github.com/a/b"}
        )
    found = shop.sagemaker.describe_code_repository(CodeRepositoryName="churn")
    assert found["GitConfig"]["Branch"] == "main"
    tags = shop.sagemaker.list_tags(ResourceArn=found["CodeRepositoryArn"])["Tags"]
    assert tags == [{"Key": "project", "Value": "churn"}]
    with pytest.raises(ClientError, match="does not implement sagemaker:UpdateCodeRepository"):
        shop.sagemaker.update_code_repository(CodeRepositoryName="churn")
    shop.sagemaker.delete_code_repository(CodeRepositoryName="churn")
    assert shop.sagemaker.list_code_repositories()["CodeRepositorySummaryList"] == []
