"""SageMaker's models and endpoint configurations. Starts nothing.

A model is a version of the registry, and a configuration has one production variant: that is how
stages are deployed. Other forms are refused by name.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sm_mlops.sandbox import images, wire
from sm_mlops.sandbox.access import NoAccess, RoleObjects
from sm_mlops.sandbox.jobs import refuse_volume_key
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role
from sm_mlops.sandbox.registry import Registry
from sm_mlops.sandbox.serving import ServingFailed
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, invalid, not_implemented, pick

MODEL, CONFIG = "Model", "EndpointConfig"
NOUNS = {
    MODEL: ("model", "model"),
    CONFIG: ("endpoint-config", "endpoint configuration"),
    "Endpoint": ("endpoint", "endpoint"),
}
NO_ACCESS = (
    'Could not access model data at {url}. Please ensure that the role "{role}" exists and that '
    'its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
    '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that '
    "the object is located in {region}."
)
MODEL_MEMBERS = (
    "ModelName",
    "PrimaryContainer",
    "ExecutionRoleArn",
    "VpcConfig",
    "EnableNetworkIsolation",
    "Tags",
)
CONFIG_MEMBERS = (
    "EndpointConfigName",
    "ProductionVariants",
    "DataCaptureConfig",
    "AsyncInferenceConfig",
    "KmsKeyId",
    "Tags",
)
VARIANT_MEMBERS = (
    "VariantName",
    "ModelName",
    "InitialVariantWeight",
    "InstanceType",
    "InitialInstanceCount",
    "ServerlessConfig",
)


class Models:
    """Operations on models and endpoint configurations. Keys of records are ARNs."""

    def __init__(self, store: Store, objects: Objects, registry: Registry) -> None:
        self.store, self.objects, self.registry = store, objects, registry

    def create_model(self, params: Params, caller: Caller) -> Params:
        arn = caller.arn(f"model/{params['ModelName']}")
        if self.store.get(MODEL, arn) is not None:
            raise invalid(f'Cannot create already existing model "{arn}".')
        wire.only("CreateModel", params, *MODEL_MEMBERS)
        for member in ("ExecutionRoleArn", "PrimaryContainer"):
            if member not in params:
                raise invalid(f"{member} is required")
        role, given = params["ExecutionRoleArn"], params["PrimaryContainer"]
        check_role(role, caller)
        wire.only("CreateModel", given, "ModelPackageName")
        if "ModelPackageName" not in given:
            raise invalid("PrimaryContainer.ModelPackageName is required")
        record = {
            **{name: value for name, value in params.items() if name != "Tags"},
            "ModelArn": arn,
            "CreationTime": time.time(),
            "_container": self._container(given["ModelPackageName"], role, caller),
            "_tags": params.get("Tags", []),
        }
        self.store.put(MODEL, arn, record)
        return {"ModelArn": arn}

    def _container(self, package_name: str, role: str, caller: Caller) -> Params:
        """Return image, model data and environment of a version's container."""
        package = self.registry.describe_model_package({"ModelPackageName": package_name}, caller)
        containers = package.get("InferenceSpecification", {}).get("Containers")
        if not containers:
            raise invalid(
                f"Model package {package['ModelPackageArn']} has no inference specification"
            )
        if len(containers) > 1:
            raise not_implemented("inference pipelines of several containers")
        container = containers[0]
        if "ModelDataUrl" not in container:
            raise not_implemented("a container without ModelDataUrl")
        try:
            images.find(container["Image"])
        except images.ImageError as error:
            raise invalid(str(error)) from error
        self._check_data(container["ModelDataUrl"], role, caller)
        return {"Environment": {}, **pick(container, "Image", "ModelDataUrl", "Environment"),
                "Role": role}  # fmt: skip

    def _check_data(self, url: str, arn: str, caller: Caller) -> None:
        """Raise ApiError for model data that does not exist or that the role may not read."""
        try:
            RoleObjects(self.objects, arn, caller).path(*location(url))
        except NoAccess as error:
            words = NO_ACCESS.format(url=url, role=arn, region=caller.region)
            raise invalid(words) from error
        except NoSuchObject as error:
            raise invalid(f"Could not find model data at {url}.") from error

    def describe_model(self, params: Params, caller: Caller) -> Params:
        found = wire.public(find(self.store, MODEL, params["ModelName"], caller))
        return found | {"ModelArn": found["ModelArn"].lower()}

    def list_models(self, params: Params, caller: Caller) -> Params:
        return listed(self.store, MODEL, "Models", params, caller)

    def delete_model(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteModel; endpoints that use it keep running."""
        record = find(self.store, MODEL, params["ModelName"], caller)
        self.store.delete(MODEL, record["ModelArn"])
        return {}

    def create_endpoint_config(self, params: Params, caller: Caller) -> Params:
        arn = caller.arn(f"endpoint-config/{params['EndpointConfigName']}")
        if self.store.get(CONFIG, arn) is not None:
            raise invalid(f'Cannot create already existing endpoint configuration "{arn}".')
        wire.only("CreateEndpointConfig", params, *CONFIG_MEMBERS)
        if len(params["ProductionVariants"]) > 1:
            raise not_implemented("endpoints with several production variants")
        [variant] = params["ProductionVariants"]
        wire.only("CreateEndpointConfig", variant, *VARIANT_MEMBERS)
        model = find(self.store, MODEL, variant.get("ModelName", ""), caller)
        _check_variant(variant, params, model)
        refuse_volume_key({**variant, "VolumeKmsKeyId": params.get("KmsKeyId")})
        output = params.get("AsyncInferenceConfig", {}).get("OutputConfig", {})
        if "AsyncInferenceConfig" in params and "S3OutputPath" not in output:
            raise invalid("The sandbox needs AsyncInferenceConfig.OutputConfig.S3OutputPath")
        wire.only("CreateEndpointConfig", output, "S3OutputPath", "S3FailurePath", "KmsKeyId")
        for key in (
            params.get("KmsKeyId"),
            params.get("DataCaptureConfig", {}).get("KmsKeyId"),
            output.get("KmsKeyId"),
        ):
            if key:
                check_key(key, caller)
        record = {
            **{name: value for name, value in params.items() if name != "Tags"},
            "ProductionVariants": [{"InitialVariantWeight": 1.0, **variant}],
            "EndpointConfigArn": arn,
            "CreationTime": time.time(),
            "_tags": params.get("Tags", []),
        }
        self.store.put(CONFIG, arn, record)
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, params: Params, caller: Caller) -> Params:
        return wire.public(find(self.store, CONFIG, params["EndpointConfigName"], caller))

    def list_endpoint_configs(self, params: Params, caller: Caller) -> Params:
        return listed(self.store, CONFIG, "EndpointConfigs", params, caller)

    def delete_endpoint_config(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteEndpointConfig, even if an endpoint uses it and can then not be updated."""
        record = find(self.store, CONFIG, params["EndpointConfigName"], caller)
        self.store.delete(CONFIG, record["EndpointConfigArn"])
        return {}


def find(store: Store, kind: str, name: str, caller: Caller) -> Record:
    """Return a model, configuration or endpoint of the caller's. Raises ApiError."""
    part, noun = NOUNS[kind]
    arn = caller.arn(f"{part}/{name}")
    return store.find(kind, arn, invalid(f'Could not find {noun} "{arn}".'))


def listed(store: Store, kind: str, member: str, params: Params, caller: Caller) -> Params:
    """Return the answer of a List operation on models, configurations, endpoints or jobs."""
    rows = [
        record
        for arn, record in list(store.all(kind).items())
        if arn.startswith(caller.arn(""))
        and params.get("NameContains", "") in record[f"{kind}Name"]
    ]
    rows, token = wire.listed(f"List{kind}s", rows, params, "NameContains")
    names = (f"{kind}Name", f"{kind}Arn", "CreationTime", "LastModifiedTime", f"{kind}Status")
    more = ("TransformEndTime", "FailureReason") if kind == "TransformJob" else ()
    return {member: [pick(row, *names, *more) for row in rows], **token}


def _check_variant(variant: Params, config: Params, model: Record) -> None:
    """Raise ApiError for what the documentation of CreateEndpointConfig and of serverless inference
    excludes."""
    name = variant["VariantName"]
    serverless = variant.get("ServerlessConfig")
    if serverless is None:
        if "InstanceType" not in variant or "InitialInstanceCount" not in variant:
            raise invalid(
                f"Variant '{name}' needs InstanceType and InitialInstanceCount, or a "
                "ServerlessConfig"
            )
        return
    excluded = [
        ("InstanceType" in variant or "InitialInstanceCount" in variant, "an instance type"),
        ("DataCaptureConfig" in config, "data capture"),
        ("AsyncInferenceConfig" in config, "asynchronous inference"),
        ("VpcConfig" in model, "a VPC configuration"),
        (bool(model.get("EnableNetworkIsolation")), "network isolation"),
    ]
    for found, what in excluded:
        if found:
            raise invalid(f"Serverless endpoints do not support {what} (variant '{name}')")
    if serverless["MemorySizeInMB"] % 1024:
        raise invalid("MemorySizeInMB must be one of 1024, 2048, 3072, 4096, 5120, 6144")
    wire.only("CreateEndpointConfig", serverless, "MemorySizeInMB", "MaxConcurrency")


def check_key(key: str, caller: Caller) -> None:
    """Raise ApiError for a KMS key that does not exist or is not enabled."""
    from moto.kms.models import kms_backends

    parts = key.split(":")
    account, region = (parts[4], parts[3]) if len(parts) == 6 else (caller.account, caller.region)
    backend: Any = kms_backends[account][region]
    found = backend.keys.get(backend.any_id_to_key_id(key))
    if found is None:
        raise invalid(f"KMS key {key} does not exist.")
    if not found.enabled:
        raise invalid(f"KMS key {key} is not enabled.")


def archive(objects: Objects, container: Params, owner: Caller) -> Path:
    """Return the file with a container's model data. Raises ServingFailed."""
    try:
        readable = RoleObjects(objects, container["Role"], owner)
        return readable.path(*location(container["ModelDataUrl"]))
    except (NoSuchObject, ApiError) as error:
        raise ServingFailed("download") from error


def location(url: str) -> tuple[str, str]:
    """Return (bucket, key) of an s3:// address. Raises ApiError for anything else."""
    parts = urlparse(url, allow_fragments=False)
    if parts.scheme != "s3":
        raise invalid(f"'{url}' is not an address that begins with s3://")
    return parts.netloc, parts.path.removeprefix("/")
