"""Models, endpoint configurations and endpoints, as SageMaker answers for them, and the processes
behind the endpoints.

An update starts the new fleet beside the old one and moves the traffic step by step, as AWS's page
"Deployment guardrails" describes; waiting times are shortened to `TIME` of what is asked for. Knows
nothing of invocations: sandbox/runtime.py asks `route` for a container.
"""

from __future__ import annotations

import math
import random
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.metrics import Metrics, known_alarm
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role, may
from sm_mlops.sandbox.registry import Registry
from sm_mlops.sandbox.serving import LOG_GROUP, STARTUP_SECONDS, Container, ServingFailed
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.wire import ApiError, Caller, Params, invalid, pick

MODEL, CONFIG, ENDPOINT = "Model", "EndpointConfig", "Endpoint"
SERVING_LOG = "ServingLog"
TIME = 0.004
"""Seconds of the sandbox for each second of a deployment's waiting times and alarm periods."""
LOOK_SECONDS = 0.1
DRAIN_SECONDS = 60.0
LONGEST_REASON = 1024
NO_PING = (
    "The primary container for production variant {variant} did not pass the ping health check. "
    "Please check CloudWatch logs for this endpoint."
)
NO_DATA = (
    'Failed to download model data for container "container_1" from URL: "{url}". Please ensure '
    "that there is an object located at the URL and that the role passed to CreateModel has "
    "permissions to download the object."
)
NO_ACCESS = (
    'Could not access model data at {url}. Please ensure that the role "{role}" exists and that '
    'its trust relationship policy allows the action "sts:AssumeRole" for the service principal '
    '"sagemaker.amazonaws.com". Also ensure that the role has "s3:GetObject" permissions and that '
    "the object is located in {region}."
)
NO_ARCHIVE = (
    'Failed to extract model data archive for container "container_1" from URL "{url}". Please '
    "ensure that the object located at the URL is a valid tar.gz archive."
)


class Failed(Exception):
    """Why a deployment cannot go on, in the words of FailureReason."""


@dataclass(frozen=True)
class Variant:
    """A production variant of a fleet and the container that serves it."""

    name: str
    weight: float
    container: Container
    instances: int


@dataclass
class Fleet:
    """The variants of one endpoint configuration as deployed, by name."""

    variants: dict[str, Variant]

    def pick(self) -> Variant:
        """Return a variant by weight."""
        found = list(self.variants.values())
        if len(found) == 1:
            return found[0]
        weights = [variant.weight for variant in found]
        return random.choices(found, weights if any(weights) else None)[0]

    def end(self) -> None:
        """Answer what is under way, then end every process."""
        for variant in self.variants.values():
            variant.container.drain(DRAIN_SECONDS)
            variant.container.end()


@dataclass
class Live:
    """What stands behind an endpoint now: the fleet, and during an update the new one with its
    share of the traffic."""

    blue: Fleet | None = None
    green: Fleet | None = None
    share: float = 0.0
    leaving: list[Fleet] = field(default_factory=list)
    """Fleets that answer what they have begun, and end."""
    thread: threading.Thread | None = None

    def fleets(self) -> list[Fleet]:
        """Return the fleets there are."""
        return [fleet for fleet in (self.blue, self.green, *self.leaving) if fleet]

    def dismiss(self, fleet: Fleet | None) -> None:
        """End a fleet that gets no requests any more."""
        if fleet is not None:
            self.leaving.append(fleet)
            fleet.end()
            self.leaving.remove(fleet)


class Endpoints:
    """Operations on models, endpoint configurations and endpoints. Keys of records are ARNs.

    `on_idle` is called when a deployment has ended, `on_deleted` when an endpoint is gone, and its
    scalable targets with it.
    """

    def __init__(
        self, store: Store, objects: Objects, registry: Registry, metrics: Metrics, folder: Path
    ) -> None:
        self.store, self.objects, self.registry = store, objects, registry
        self.metrics, self.folder = metrics, folder
        self.on_idle: Callable[[], None] = lambda: None
        self.on_deleted: Callable[[], None] = lambda: None
        self.live: dict[str, Live] = {}
        self.closing = False

    def recover(self) -> None:
        """Take up what a server before this one has left: endpoints in service stay so and start
        their processes when asked; deployments begin again, deletions are finished."""
        keep = set()
        unfinished: list[tuple[str, Callable[[Record, Live], None]]] = []
        for arn, record in list(self.store.all(ENDPOINT).items()):
            keep.update(record.get("_instances", {}).values())
            self.live[arn] = Live()
            if record.get("_instances"):
                self.live[arn].blue = self._fleet(record, record["_deployed"], record["_instances"])
            if record["EndpointStatus"] == "Deleting":
                unfinished.append((arn, self._delete))
            elif record["EndpointStatus"] in ("Creating", "Updating", "RollingBack"):
                begin = self._update if record.get("_instances") else self._create
                unfinished.append((arn, begin))
        for endpoint in self.folder.iterdir() if self.folder.is_dir() else ():
            for entry in endpoint.iterdir() if endpoint.is_dir() else ():
                if entry.is_dir() and entry.name not in keep:
                    shutil.rmtree(entry, ignore_errors=True)
        # Now only: what they unpack would look like something left behind.
        for arn, work in unfinished:
            self._begin(arn, work)

    def busy(self) -> bool:
        """Tell whether a deployment is under way or a fleet is leaving."""
        return any(live.thread or live.leaving for live in list(self.live.values()))

    def close(self) -> None:
        """End every process. Endpoints stay what they are; deployments are taken up again."""
        self.closing = True
        found = [
            variant.container
            for live in list(self.live.values())
            for fleet in live.fleets()
            for variant in fleet.variants.values()
        ]
        with ThreadPoolExecutor(max(1, len(found))) as pool:
            list(pool.map(Container.stop, found))
        for live in list(self.live.values()):
            if live.thread is not None:
                live.thread.join(timeout=5)

    # Models.

    def create_model(self, params: Params, caller: Caller) -> Params:
        """CreateModel: from a version of the registry, or from an image and model data."""
        arn = caller.arn(f"model/{params['ModelName']}")
        if self.store.get(MODEL, arn) is not None:
            raise invalid(f'Cannot create already existing model "{arn}".')
        containers = params.get("Containers") or []
        if ("PrimaryContainer" in params) == bool(containers):
            raise invalid("Exactly one of PrimaryContainer and Containers must be given")
        if len(containers) > 1:
            raise invalid("The sandbox does not support inference pipelines of several containers")
        if "ExecutionRoleArn" not in params:
            raise invalid("ExecutionRoleArn is required")
        check_role(params["ExecutionRoleArn"], caller)
        given = params.get("PrimaryContainer") or containers[0]
        record = {
            **{name: value for name, value in params.items() if name != "Tags"},
            "ModelArn": arn,
            "CreationTime": time.time(),
            "_container": self._resolved(given, params["ExecutionRoleArn"], caller),
            "_tags": params.get("Tags", []),
        }
        record.setdefault("EnableNetworkIsolation", False)
        self.store.put(MODEL, arn, record)
        return {"ModelArn": arn}

    def describe_model(self, params: Params, caller: Caller) -> Params:
        """DescribeModel."""
        return wire.public(self._find(MODEL, "model", params, caller))

    def list_models(self, params: Params, caller: Caller) -> Params:
        """ListModels: the newest first unless asked otherwise."""
        return self._list(MODEL, "Models", params, caller, ())

    def delete_model(self, params: Params, caller: Caller) -> Params:
        """DeleteModel: endpoints that use it go on."""
        record = self._find(MODEL, "model", params, caller)
        self.store.delete(MODEL, record["ModelArn"])
        return {}

    def _resolved(self, given: Params, role: str, caller: Caller) -> Params:
        """Return image, model data and environment of a container, whatever they come from."""
        if given.get("Mode") == "MultiModel":
            raise invalid("The sandbox does not support multi-model containers")
        if "ModelPackageName" in given:
            for name in ("Image", "ModelDataUrl", "ModelDataSource"):
                if name in given:
                    raise invalid(f"{name} cannot be given together with ModelPackageName")
            given = self._packaged(given, caller)
        elif "Image" not in given:
            raise invalid("A container needs an Image or a ModelPackageName")
        source = given.get("ModelDataSource", {}).get("S3DataSource", {})
        if source and source.get("CompressionType") != "Gzip":
            raise invalid("The sandbox supports model data in a .tar.gz archive only")
        url = given.get("ModelDataUrl") or source.get("S3Uri")
        if url:
            self._check_data(url, role, caller)
        return {
            "Image": given["Image"],
            "Environment": given.get("Environment", {}),
            "Role": role,
            **({"ModelDataUrl": url} if url else {}),
        }

    def _packaged(self, given: Params, caller: Caller) -> Params:
        package = self.registry.package(given["ModelPackageName"], "CreateModel", caller)
        specification = package.get("InferenceSpecification")
        name = given.get("InferenceSpecificationName")
        if name:
            others = package.get("AdditionalInferenceSpecifications", [])
            specification = next((s for s in others if s["Name"] == name), None)
        if not specification or not specification.get("Containers"):
            raise invalid(
                f"Model package {package['ModelPackageArn']} has no inference specification"
                + (f" named {name}" if name else "")
            )
        if len(specification["Containers"]) > 1:
            raise invalid("The sandbox does not support inference pipelines of several containers")
        container = specification["Containers"][0]
        environment = {**container.get("Environment", {}), **given.get("Environment", {})}
        return {**container, "Environment": environment}

    def _check_data(self, url: str, arn: str, caller: Caller) -> None:
        """Refuse model data that is not there or that the role may not read."""
        bucket, key = location(url)
        try:
            self.objects.path(bucket, key)
        except NoSuchObject as error:
            raise invalid(f"Could not find model data at {url}.") from error
        role = check_role(arn, caller)
        if not may(role, "s3:GetObject", self.objects.buckets()[bucket], key, caller):
            raise invalid(NO_ACCESS.format(url=url, role=arn, region=caller.region))

    # Endpoint configurations.

    def create_endpoint_config(self, params: Params, caller: Caller) -> Params:
        """CreateEndpointConfig."""
        arn = caller.arn(f"endpoint-config/{params['EndpointConfigName']}")
        if self.store.get(CONFIG, arn) is not None:
            raise invalid(f'Cannot create already existing endpoint configuration "{arn}".')
        if "ShadowProductionVariants" in params:
            raise invalid("The sandbox does not support shadow variants")
        names = [variant["VariantName"] for variant in params["ProductionVariants"]]
        if len(set(names)) != len(names):
            raise invalid(f"Variant names must be unique: {', '.join(names)}")
        for variant in params["ProductionVariants"]:
            if "ModelName" not in variant:
                raise invalid("The sandbox does not support inference components: give a ModelName")
            _check_variant(variant, params, self._find(MODEL, "model", variant, caller))
        for key in (
            params.get("KmsKeyId"),
            params.get("DataCaptureConfig", {}).get("KmsKeyId"),
            params.get("AsyncInferenceConfig", {}).get("OutputConfig", {}).get("KmsKeyId"),
        ):
            if key:
                _check_key(key, caller)
        if "AsyncInferenceConfig" in params:
            output = params["AsyncInferenceConfig"]["OutputConfig"]
            if "S3OutputPath" not in output:
                raise invalid("The sandbox needs AsyncInferenceConfig.OutputConfig.S3OutputPath")
        record = {
            **{name: value for name, value in params.items() if name != "Tags"},
            "ProductionVariants": [
                {"InitialVariantWeight": 1.0, **variant} for variant in params["ProductionVariants"]
            ],
            "EndpointConfigArn": arn,
            "CreationTime": time.time(),
            "_tags": params.get("Tags", []),
        }
        record.setdefault("EnableNetworkIsolation", False)
        self.store.put(CONFIG, arn, record)
        return {"EndpointConfigArn": arn}

    def describe_endpoint_config(self, params: Params, caller: Caller) -> Params:
        """DescribeEndpointConfig."""
        return wire.public(self._config(params["EndpointConfigName"], caller))

    def list_endpoint_configs(self, params: Params, caller: Caller) -> Params:
        """ListEndpointConfigs: the newest first unless asked otherwise."""
        return self._list(CONFIG, "EndpointConfigs", params, caller, ())

    def delete_endpoint_config(self, params: Params, caller: Caller) -> Params:
        """DeleteEndpointConfig: allowed while an endpoint uses it, which then cannot be updated."""
        record = self._config(params["EndpointConfigName"], caller)
        self.store.delete(CONFIG, record["EndpointConfigArn"])
        return {}

    # Endpoints.

    def create_endpoint(self, params: Params, caller: Caller) -> Params:
        """CreateEndpoint: answers at once, the endpoint is created in the background."""
        arn = caller.arn(f"endpoint/{params['EndpointName']}")
        config = self._config(params["EndpointConfigName"], caller)
        now = time.time()
        record: Record = {
            "EndpointName": params["EndpointName"],
            "EndpointArn": arn,
            "EndpointConfigName": config["EndpointConfigName"],
            "EndpointStatus": "Creating",
            "CreationTime": now,
            "LastModifiedTime": now,
            "_tags": params.get("Tags", []),
            "_pending": self._snapshot(config, caller),
        }
        with self.store.lock:
            if self.store.get(ENDPOINT, arn) is not None:
                raise invalid(f'Cannot create already existing endpoint "{arn}".')
            self.store.put(ENDPOINT, arn, record)
            self.live[arn] = Live()
        self._begin(arn, self._create)
        return {"EndpointArn": arn}

    def update_endpoint(self, params: Params, caller: Caller) -> Params:
        """UpdateEndpoint: answers at once, the new fleet takes over in the background."""
        with self.store.lock:
            record = self._endpoint(params["EndpointName"], caller)
            self._settled(record)
            _refuse_failed(record)
            # A configuration deleted under its endpoint makes updates impossible, on AWS as well.
            self._config(record["EndpointConfigName"], caller)
            config = self._config(params["EndpointConfigName"], caller)
            pending = self._snapshot(config, caller)
            pending["deployment"] = params.get("DeploymentConfig")
            if params.get("RetainDeploymentConfig"):
                pending["deployment"] = record.get("LastDeploymentConfig")
            _check_update(record, pending, caller)
            if params.get("RetainAllVariantProperties"):
                excluded = params.get("ExcludeRetainedVariantProperties", [])
                _retain(record, pending, {item["VariantPropertyType"] for item in excluded})
            record.pop("FailureReason", None)
            record["_pending"] = pending
            self._set_status(record, "Updating")
        self._begin(record["EndpointArn"], self._update)
        return {"EndpointArn": record["EndpointArn"]}

    def describe_endpoint(self, params: Params, caller: Caller) -> Params:
        """DescribeEndpoint."""
        return wire.public(self._endpoint(params["EndpointName"], caller))

    def list_endpoints(self, params: Params, caller: Caller) -> Params:
        """ListEndpoints: the newest first unless asked otherwise."""
        return self._list(
            ENDPOINT, "Endpoints", params, caller, ("LastModifiedTime", "EndpointStatus")
        )

    def delete_endpoint(self, params: Params, caller: Caller) -> Params:
        """DeleteEndpoint: its processes end; the log stays."""
        with self.store.lock:
            record = self._endpoint(params["EndpointName"], caller)
            self._settled(record)
            self._set_status(record, "Deleting")
        self._begin(record["EndpointArn"], self._delete)
        return {}

    def update_endpoint_weights_and_capacities(self, params: Params, caller: Caller) -> Params:
        """UpdateEndpointWeightsAndCapacities: at once, since there is one process per variant."""
        with self.store.lock:
            record = self._endpoint(params["EndpointName"], caller)
            self._settled(record)
            _refuse_failed(record)
            shown = {v["VariantName"]: v for v in record["ProductionVariants"]}
            asked = params["DesiredWeightsAndCapacities"]
            for item in asked:
                if item["VariantName"] not in shown:
                    raise invalid(
                        f'Could not find variant "{item["VariantName"]}" of endpoint '
                        f'"{record["EndpointArn"]}".'
                    )
                if (
                    "DesiredInstanceCount" in item
                    and "CurrentServerlessConfig" in shown[item["VariantName"]]
                ):
                    raise invalid("A serverless variant has no instance count")
            blue = self.live[record["EndpointArn"]].blue
            deployed = {v["VariantName"]: v for v in record["_deployed"]["variants"]}
            for item in asked:
                name = item["VariantName"]
                if "DesiredWeight" in item:
                    weight = float(item["DesiredWeight"])
                    shown[name]["CurrentWeight"] = shown[name]["DesiredWeight"] = weight
                    deployed[name]["InitialVariantWeight"] = weight
                    if blue is not None:
                        blue.variants[name] = replace(blue.variants[name], weight=weight)
                if "DesiredInstanceCount" in item:
                    count = item["DesiredInstanceCount"]
                    shown[name]["CurrentInstanceCount"] = count
                    shown[name]["DesiredInstanceCount"] = count
                    deployed[name]["InitialInstanceCount"] = count
                    if blue is not None:
                        blue.variants[name] = replace(blue.variants[name], instances=count)
            self._set_status(record, "InService")
        return {"EndpointArn": record["EndpointArn"]}

    # What the runtime asks for.

    def route(self, arn: str, variant: str | None) -> Variant | None:
        """Return where a request goes, None if there is no variant of that name. Raises KeyError
        for an endpoint that is not in service."""
        live = self.live[arn]
        blue, green = live.blue, live.green
        if blue is None:
            raise KeyError(arn)
        fleet = green if green is not None and random.random() < live.share else blue
        return fleet.variants.get(variant) if variant else fleet.pick()

    def check_access(self, record: Record, action: str, uri: str) -> None:
        """Refuse what the execution role of an endpoint may not do with an object. Raises
        ApiError, or NoSuchObject for an unknown bucket."""
        bucket, key = location(uri)
        found = self.objects.buckets().get(bucket)
        if found is None:
            raise NoSuchObject(f"The specified bucket does not exist: {bucket}")
        owner = _owner(record)
        arn = record["_deployed"]["variants"][0]["container"]["Role"]
        if not may(check_role(arn, owner), action, found, key, owner):
            raise invalid(f"{arn} is not authorized to perform: {action} on {uri}")

    # Deployments, each in a thread of its own.

    def _begin(self, arn: str, work: Callable[[Record, Live], None]) -> None:
        record, live = self.store.all(ENDPOINT)[arn], self.live[arn]

        def run() -> None:
            try:
                work(record, live)
            except Exception as error:
                # An endpoint must not stay in progress for ever, whatever went wrong.
                reason = f"The sandbox failed: {type(error).__name__}: {error}"
                green, live.green, live.share = live.green, None, 0.0
                live.dismiss(green)
                self._fail(record, "InService" if live.blue else "Failed", reason)
                raise
            finally:
                # The next operation may have begun while an old fleet was leaving.
                if live.thread is threading.current_thread():
                    live.thread = None
                self.on_idle()

        live.thread = threading.Thread(target=run, name=record["EndpointName"], daemon=True)
        live.thread.start()

    def _create(self, record: Record, live: Live) -> None:
        try:
            fleet, instances = self._launch(record, live)
        except Failed as error:
            live.green = None
            self._fail(record, "Failed", str(error))
            return
        with self.store.lock:
            if self.closing:
                return
            live.blue, live.green = fleet, None
            self._deployed(record, record.pop("_pending"), instances)

    def _update(self, record: Record, live: Live) -> None:
        try:
            self._show_pending(record, "Creating")
            fleet, instances = self._launch(record, live)
            self._shift(record, live)
        except Failed as error:
            self._roll_back(record, live, str(error))
            return
        with self.store.lock:
            if self.closing:
                return
            old, live.blue, live.green, live.share = live.blue, fleet, None, 0.0
            deployment = record["_pending"].get("deployment")
            if deployment:
                record["LastDeploymentConfig"] = deployment
            self._deployed(record, record.pop("_pending"), instances)
        live.dismiss(old)

    def _launch(self, record: Record, live: Live) -> tuple[Fleet, dict[str, str]]:
        """Start the pending fleet and wait until all of it is healthy. Raises Failed."""
        pending = record["_pending"]
        instances = {v["VariantName"]: f"i-0{secrets.token_hex(8)}" for v in pending["variants"]}
        fleet = live.green = self._fleet(record, pending, instances)
        if self.closing:
            raise Failed("The sandbox is ending")
        with ThreadPoolExecutor(len(instances)) as pool:
            problems = list(pool.map(_problem, fleet.variants.values()))
        for variant, problem in zip(pending["variants"], problems, strict=True):
            if problem:
                url = variant["container"].get("ModelDataUrl")
                text = {"ping": NO_PING, "download": NO_DATA, "extract": NO_ARCHIVE}.get(problem)
                fleet.end()
                raise Failed((text or problem).format(variant=variant["VariantName"], url=url))
        return fleet, instances

    def _shift(self, record: Record, live: Live) -> None:
        """Move the traffic to the new fleet. Raises Failed when an alarm goes off."""
        deployment = record["_pending"].get("deployment") or {}
        begun = time.time()
        for share, wait in steps(deployment, record["_pending"]["variants"]):
            live.share = share
            self._show_pending(record, "Baking" if share == 1 else "ActivatingTraffic")
            self._wait(record, deployment, wait, begun)

    def _show_pending(self, record: Record, status: str) -> None:
        """Let DescribeEndpoint tell how far the deployment is."""
        now = time.time()
        with self.store.lock:
            if self.closing:
                return
            pending = record["_pending"]
            record["PendingDeploymentSummary"] = {
                "EndpointConfigName": pending["config"],
                "StartTime": pending["began"],
                "ProductionVariants": [
                    {
                        **_shown(variant, now),
                        "VariantStatus": [{"Status": status, "StartTime": now}],
                    }
                    for variant in pending["variants"]
                ],
            }
            self.store.put(ENDPOINT, record["EndpointArn"], record)

    def _wait(self, record: Record, deployment: Params, seconds: float, begun: float) -> None:
        names = [
            alarm["AlarmName"]
            for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])
        ]
        end = time.monotonic() + seconds * self.metrics.pace
        while True:
            found = self.metrics.alarmed(names, _owner(record), begun)
            if found:
                raise Failed(
                    f"The deployment was rolled back because CloudWatch alarm '{found}' "
                    "is in ALARM state."
                )
            left = end - time.monotonic()
            if left <= 0 or self.closing:
                return
            time.sleep(min(left, LOOK_SECONDS))

    def _roll_back(self, record: Record, live: Live, reason: str) -> None:
        with self.store.lock:
            if self.closing:
                return
            live.share = 0.0
            self._set_status(record, "RollingBack")
        green, live.green = live.green, None
        live.dismiss(green)
        with self.store.lock:
            if self.closing:
                return
            self._fail(record, "InService", reason)

    def _delete(self, record: Record, live: Live) -> None:
        for fleet in live.fleets():
            for variant in fleet.variants.values():
                variant.container.end()
        with self.store.lock:
            if self.closing:
                return
            self.store.delete(ENDPOINT, record["EndpointArn"])
            self.live.pop(record["EndpointArn"], None)
        for target in _scalable_targets(record):
            target.applicationautoscaling_backend.deregister_scalable_target(
                target.service_namespace, target.resource_id, target.scalable_dimension
            )
        self.on_deleted()

    # Records.

    def _snapshot(self, config: Record, caller: Caller) -> Record:
        """Return what a deployment needs of a configuration, which may be deleted meanwhile."""
        variants = []
        for variant in config["ProductionVariants"]:
            model = self._find(MODEL, "model", variant, caller)
            variants.append({**variant, "container": model["_container"]})
        return {
            "config": config["EndpointConfigName"],
            "began": time.time(),
            "variants": variants,
            **pick(config, "AsyncInferenceConfig", "DataCaptureConfig"),
        }

    def _fleet(self, record: Record, deployed: Record, instances: dict[str, str]) -> Fleet:
        variants = {}
        owner = _owner(record)
        folder = self.folder / record["EndpointName"]
        folder.mkdir(parents=True, exist_ok=True)
        for described in deployed["variants"]:
            name = described["VariantName"]
            instance, container = instances[name], described["container"]
            path = folder / f"{instance}.log"
            if self.store.get(SERVING_LOG, instance) is None:
                self.store.put(
                    SERVING_LOG,
                    instance,
                    {
                        "Account": owner.account,
                        "Region": owner.region,
                        "Group": f"{LOG_GROUP}{record['EndpointName']}",
                        "Stream": f"{name}/{instance}",
                        "File": f"{record['EndpointName']}/{instance}.log",
                        "Role": container["Role"],
                    },
                )
            startup = described.get("ContainerStartupHealthCheckTimeoutInSeconds", STARTUP_SECONDS)
            variants[name] = Variant(
                name,
                float(described.get("InitialVariantWeight", 1)),
                Container(
                    folder / instance,
                    path,
                    lambda container=container: self._archive(container, owner),  # type: ignore[misc]
                    container["Environment"],
                    owner.region,
                    float(startup),
                ),
                int(described.get("InitialInstanceCount", 1)),
            )
        return Fleet(variants)

    def _archive(self, container: Params, owner: Caller) -> Path | None:
        url = container.get("ModelDataUrl")
        if not url:
            return None
        try:
            objects = RoleObjects(self.objects, container["Role"], owner)
            return objects.path(*location(url))
        except (NoSuchObject, ApiError) as error:
            raise ServingFailed("download") from error

    def _deployed(self, record: Record, pending: Record, instances: dict[str, str]) -> None:
        now = time.time()
        record["EndpointConfigName"] = pending["config"]
        record["ProductionVariants"] = [_shown(variant, now) for variant in pending["variants"]]
        record.pop("PendingDeploymentSummary", None)
        record.pop("AsyncInferenceConfig", None)
        record.pop("DataCaptureConfig", None)
        record.update(pick(pending, "AsyncInferenceConfig"))
        capture = pending.get("DataCaptureConfig")
        if capture:
            enabled = bool(capture.get("EnableCapture"))
            record["DataCaptureConfig"] = {
                "EnableCapture": enabled,
                "CaptureStatus": "Started" if enabled else "Stopped",
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
                "KmsKeyId": capture.get("KmsKeyId", ""),
            }
        record["_deployed"], record["_instances"] = pending, instances
        self._set_status(record, "InService")

    def _fail(self, record: Record, status: str, reason: str) -> None:
        with self.store.lock:
            if self.closing:
                return
            record.pop("_pending", None)
            record.pop("PendingDeploymentSummary", None)
            record["FailureReason"] = reason[:LONGEST_REASON]
            self._set_status(record, status)

    def _set_status(self, record: Record, status: str) -> None:
        record["EndpointStatus"] = status
        record["LastModifiedTime"] = time.time()
        self.store.put(ENDPOINT, record["EndpointArn"], record)

    def _settled(self, record: Record) -> None:
        if record["EndpointStatus"] not in ("InService", "Failed"):
            raise invalid(f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')

    def _find(self, kind: str, label: str, params: Params, caller: Caller) -> Record:
        arn = caller.arn(f"{label}/{params[f'{kind}Name']}")
        record = self.store.get(kind, arn)
        if record is None:
            words = {CONFIG: "endpoint configuration", MODEL: "model", ENDPOINT: "endpoint"}
            raise invalid(f'Could not find {words[kind]} "{arn}".')
        return record

    def _config(self, name: str, caller: Caller) -> Record:
        return self._find(CONFIG, "endpoint-config", {"EndpointConfigName": name}, caller)

    def _endpoint(self, name: str, caller: Caller) -> Record:
        return self._find(ENDPOINT, "endpoint", {"EndpointName": name}, caller)

    def _list(
        self, kind: str, answer: str, params: Params, caller: Caller, more: Iterable[str]
    ) -> Params:
        rows = [
            record
            for arn, record in list(self.store.all(kind).items())
            if arn.startswith(caller.arn(""))
            and wire.between(record, params)
            and params.get("NameContains", "") in record[f"{kind}Name"]
            and params.get("StatusEquals") in (None, record.get(f"{kind}Status"))
        ]
        by = {"Name": f"{kind}Name", "Status": f"{kind}Status"}.get(
            params.get("SortBy", ""), "CreationTime"
        )
        rows.sort(key=lambda row: row[by], reverse=params.get("SortOrder") != "Ascending")
        rows, token = wire.page(rows, params)
        names = (f"{kind}Name", f"{kind}Arn", "CreationTime", *more)
        return {answer: [pick(row, *names) for row in rows], **token}


def _check_variant(variant: Params, config: Params, model: Record) -> None:
    """Refuse what the pages of CreateEndpointConfig and of serverless inference exclude."""
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
        (len(config["ProductionVariants"]) > 1, "multiple production variants"),
        ("DataCaptureConfig" in config, "data capture"),
        ("AsyncInferenceConfig" in config, "asynchronous inference"),
        ("VpcConfig" in model or "VpcConfig" in config, "a VPC configuration"),
        (bool(model.get("EnableNetworkIsolation")), "network isolation"),
        (bool(config.get("EnableNetworkIsolation")), "network isolation"),
    ]
    for found, what in excluded:
        if found:
            raise invalid(f"Serverless endpoints do not support {what} (variant '{name}')")
    if serverless["MemorySizeInMB"] % 1024:
        raise invalid("MemorySizeInMB must be one of 1024, 2048, 3072, 4096, 5120, 6144")
    if serverless.get("ProvisionedConcurrency", 0) > serverless["MaxConcurrency"]:
        raise invalid("ProvisionedConcurrency must not exceed MaxConcurrency")


def _check_key(key: str, caller: Caller) -> None:
    from moto.kms.models import kms_backends

    parts = key.split(":")
    account, region = (parts[4], parts[3]) if len(parts) == 6 else (caller.account, caller.region)
    backend: Any = kms_backends[account][region]
    found = backend.keys.get(backend.any_id_to_key_id(key))
    if found is None:
        raise invalid(f"KMS key {key} does not exist.")
    if not found.enabled:
        raise invalid(f"KMS key {key} is not enabled.")


def _refuse_failed(record: Record) -> None:
    if record["EndpointStatus"] == "Failed":
        raise invalid(f'Cannot update failed endpoint "{record["EndpointArn"]}".')


def _check_update(record: Record, pending: Record, caller: Caller) -> None:
    """Refuse the updates that the service refuses."""
    name, arn = record["EndpointName"], record["EndpointArn"]
    old = {v["VariantName"]: v for v in record["_deployed"]["variants"]}
    new = {v["VariantName"]: v for v in pending["variants"]}
    if any("ServerlessConfig" in v for v in new.values()) and not any(
        "ServerlessConfig" in v for v in old.values()
    ):
        raise invalid(f'Endpoint "{arn}" is instance-based and cannot be updated to serverless.')
    if ("AsyncInferenceConfig" in record) != ("AsyncInferenceConfig" in pending):
        done = "removed from" if "AsyncInferenceConfig" in record else "added to"
        raise invalid(
            f"The AsyncInferenceConfig parameter cannot be {done} this endpoint {name}. "
            "Create a new endpoint for it."
        )
    changed = [
        variant
        for variant, described in old.items()
        if variant not in new or new[variant].get("InstanceType") != described.get("InstanceType")
    ]
    registered = {target.resource_id.rpartition("/")[2] for target in _scalable_targets(record)}
    if held := [variant for variant in changed if variant in registered]:
        raise invalid(
            f'The variant(s) "{", ".join(held)}" must be deregistered as a scalable target with '
            "AWS Auto Scaling before they can be removed or have their instance type changed."
        )
    deployment = pending["deployment"]
    if not deployment:
        return
    if set(old) != set(new):
        raise invalid(
            "The new endpoint configuration must have the same variant names as the old one for a "
            f"deployment with traffic shifting: {', '.join(old)}"
        )
    _check_deployment(deployment, pending["variants"])
    for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", []):
        if not known_alarm(alarm["AlarmName"], caller):
            raise invalid(f"Could not find CloudWatch alarm {alarm['AlarmName']}.")


def _check_deployment(deployment: Params, variants: list[Params]) -> None:
    if "RollingUpdatePolicy" in deployment:
        if "BlueGreenUpdatePolicy" in deployment:
            raise invalid("Give one of BlueGreenUpdatePolicy and RollingUpdatePolicy")
        if len(variants) > 1 or "ServerlessConfig" in variants[0]:
            raise invalid(
                "Rolling deployments do not support serverless and multi-variant endpoints"
            )
        return
    routing = deployment.get("BlueGreenUpdatePolicy", {}).get("TrafficRoutingConfiguration", {})
    kind = routing.get("Type", "ALL_AT_ONCE")
    for wanted, member, least in (("CANARY", "CanarySize", 0), ("LINEAR", "LinearStepSize", 10)):
        if (kind == wanted) != (member in routing):
            raise invalid(f"{member} must be given for traffic routing of type {wanted}, only")
        if kind == wanted:
            size = routing[member]
            if _share(size, variants) > 0.5:
                raise invalid(f"{member} must be at most 50 percent of the capacity")
            if size["Type"] == "CAPACITY_PERCENT" and size["Value"] < least:
                raise invalid(f"{member} must be at least {least} percent of the capacity")


def _retain(record: Record, pending: Record, excluded: set[str]) -> None:
    """Let the new fleet keep the instance counts and weights that the old one has now."""
    shown = {v["VariantName"]: v for v in record["ProductionVariants"]}
    for variant in pending["variants"]:
        old = shown.get(variant["VariantName"], {})
        if "DesiredWeight" not in excluded and "DesiredWeight" in old:
            variant["InitialVariantWeight"] = old["DesiredWeight"]
        instances = "InitialInstanceCount" in variant and "DesiredInstanceCount" in old
        if "DesiredInstanceCount" not in excluded and instances:
            variant["InitialInstanceCount"] = old["DesiredInstanceCount"]
    if "DataCaptureConfig" not in excluded and "DataCaptureConfig" in record["_deployed"]:
        pending["DataCaptureConfig"] = record["_deployed"]["DataCaptureConfig"]


def _scalable_targets(record: Record) -> list[Any]:
    """Return moto's scalable targets of an endpoint's variants."""
    # Whoever registers one has it imported; it brings all of EC2 with it: 100 MB and half a second.
    module = sys.modules.get("moto.applicationautoscaling.models")
    if module is None:
        return []
    owner = _owner(record)
    backend: Any = module.applicationautoscaling_backends[owner.account][owner.region]
    prefix = f"endpoint/{record['EndpointName']}/variant/"
    return [
        target
        for targets in backend.targets.values()
        for resource, target in list(targets.items())
        if resource.startswith(prefix)
    ]


def steps(deployment: Params, variants: list[Params]) -> list[tuple[float, float]]:
    """Return the steps of a traffic shift: the new fleet's share, and the seconds to wait then."""
    rolling = deployment.get("RollingUpdatePolicy")
    if rolling:
        size = max(0.05, _share(rolling["MaximumBatchSize"], variants))
        wait = float(rolling["WaitIntervalInSeconds"])
        return [(min(1.0, size * count), wait) for count in range(1, math.ceil(1 / size) + 1)]
    policy = deployment.get("BlueGreenUpdatePolicy", {})
    routing = policy.get("TrafficRoutingConfiguration", {"Type": "ALL_AT_ONCE"})
    wait = float(routing.get("WaitIntervalInSeconds", 0))
    parts = []
    if routing["Type"] == "CANARY":
        parts = [_share(routing["CanarySize"], variants)]
    elif routing["Type"] == "LINEAR":
        size = _share(routing["LinearStepSize"], variants)
        parts = [size * count for count in range(1, 100) if size * count < 0.999]
    last = wait + float(policy.get("TerminationWaitInSeconds", 0))
    return [*((part, wait) for part in parts), (1.0, last)]


def _share(size: Params, variants: list[Params]) -> float:
    if size["Type"] == "CAPACITY_PERCENT":
        return float(size["Value"]) / 100
    count = sum(int(variant.get("InitialInstanceCount", 1)) for variant in variants)
    return min(1.0, float(size["Value"]) / max(1, count))


def _problem(variant: Variant) -> str | None:
    try:
        variant.container.start()
    except ServingFailed as error:
        return error.problem
    return None


def _shown(variant: Params, now: float) -> Params:
    """Return what DescribeEndpoint shows of a variant."""
    image = variant["container"]["Image"]
    weight = float(variant.get("InitialVariantWeight", 1))
    shown: Params = {
        "VariantName": variant["VariantName"],
        "DeployedImages": [
            {"SpecifiedImage": image, "ResolvedImage": image, "ResolutionTime": now}
        ],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
    }
    if "ServerlessConfig" in variant:
        serverless = variant["ServerlessConfig"]
        # As the service shows it: no instances, not none at all.
        shown |= {"CurrentInstanceCount": 0, "CurrentServerlessConfig": serverless}
    else:
        count = variant["InitialInstanceCount"]
        shown |= {"CurrentInstanceCount": count, "DesiredInstanceCount": count}
    return shown


def _owner(record: Record) -> Caller:
    _, _, _, region, account, _ = record["EndpointArn"].split(":", 5)
    return Caller(account, region, "")


def location(url: str) -> tuple[str, str]:
    """Return (bucket, key) of an S3 address. Raises ApiError for anything else."""
    parts = urlparse(url, allow_fragments=False)
    if parts.scheme == "s3":
        return parts.netloc, parts.path.removeprefix("/")
    # https://bucket.s3.region.amazonaws.com/key and https://s3.region.amazonaws.com/bucket/key
    host, path = parts.netloc, parts.path.removeprefix("/")
    if parts.scheme == "https" and ".s3" in host:
        return host.partition(".s3")[0], path
    bucket, _, key = path.partition("/")
    if parts.scheme != "https" or not host.startswith("s3") or not key:
        raise invalid(f"'{url}' is not an S3 address")
    return bucket, key
