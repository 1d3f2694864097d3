"""SageMaker's endpoints and the processes behind them.

An update starts the new fleet next to the old one and shifts the traffic step by step; waiting
times are shortened by `TIME`. Knows nothing of invocations: runtime.py gets a fleet from `route`.
"""

from __future__ import annotations

import random
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sm_mlops.sandbox import clock, wire
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.fleets import Fleet, Live
from sm_mlops.sandbox.hosting import CONFIG, MODEL, archive, find, listed
from sm_mlops.sandbox.metrics import Metrics
from sm_mlops.sandbox.objects import Objects
from sm_mlops.sandbox.serving import LOG_GROUP, Container, ServingFailed
from sm_mlops.sandbox.storage import Record, Store
from sm_mlops.sandbox.traffic import check_update, owner_of, retain, scalable_targets, steps
from sm_mlops.sandbox.wire import Caller, Params, invalid, pick

ENDPOINT = "Endpoint"
SERVING_LOG = "ServingLog"
TIME = 0.004
"""Seconds of the sandbox for each second of a deployment's waiting times and alarm periods."""
LOOK_SECONDS = 0.1
LONGEST_REASON = 1024
REASONS = {
    "ping": "The primary container for production variant {variant} did not pass the ping health "
    "check. Please check CloudWatch logs for this endpoint.",
    "download": 'Failed to download model data for container "container_1" from URL: "{url}". '
    "Please ensure that there is an object located at the URL and that the role passed to "
    "CreateModel has permissions to download the object.",
    "extract": 'Failed to extract model data archive for container "container_1" from URL '
    '"{url}". Please ensure that the object located at the URL is a valid tar.gz archive.',
}


class Failed(Exception):
    """Why a deployment failed, in the words of FailureReason."""


class Endpoints:
    """Operations on endpoints. Keys of records are ARNs.

    `on_idle` is called when a deployment has ended, `on_deleted` when an endpoint is gone, and its
    scalable targets with it.
    """

    def __init__(self, store: Store, objects: Objects, metrics: Metrics, folder: Path) -> None:
        self.store, self.objects, self.metrics, self.folder = store, objects, metrics, folder
        self.on_idle: Callable[[], None] = lambda: None
        self.on_deleted: Callable[[], None] = lambda: None
        self.live: dict[str, Live] = {}
        self.closing = False

    def recover(self) -> None:
        """Continue from an earlier server: endpoints in service start their processes on the first
        request, deployments start again, deletions are finished."""
        keep = set()
        unfinished: list[tuple[str, Callable[[Record, Live], None]]] = []
        for arn, record in list(self.store.all(ENDPOINT).items()):
            keep.add(record.get("_instance"))
            self.live[arn] = Live()
            if "_instance" in record:
                self.live[arn].blue = self._fleet(record, record["_deployed"], record["_instance"])
            if record["EndpointStatus"] == "Deleting":
                unfinished.append((arn, self._delete))
            elif record["EndpointStatus"] in ("Creating", "Updating", "RollingBack"):
                begin = self._update if "_instance" in record else self._create
                unfinished.append((arn, begin))
        for endpoint in self.folder.iterdir() if self.folder.is_dir() else ():
            for entry in endpoint.iterdir() if endpoint.is_dir() else ():
                if entry.is_dir() and entry.name not in keep:
                    shutil.rmtree(entry, ignore_errors=True)
        # Only now: what they unpack would look like leftovers.
        for arn, work in unfinished:
            self._begin(arn, work)

    def busy(self) -> bool:
        """Tell whether a deployment runs or a fleet is draining."""
        return any(live.thread or live.leaving for live in list(self.live.values()))

    def close(self) -> None:
        """End every process. Endpoints keep their status; the next server continues deployments."""
        self.closing = True
        found = [fleet.container for live in list(self.live.values()) for fleet in live.fleets()]
        with ThreadPoolExecutor(max(1, len(found))) as pool:
            list(pool.map(Container.stop, found))
        for live in list(self.live.values()):
            if live.thread is not None:
                live.thread.join(timeout=5)

    def create_endpoint(self, params: Params, caller: Caller) -> Params:
        """Answer CreateEndpoint at once; the endpoint is created in the background."""
        wire.only("CreateEndpoint", params, "EndpointName", "EndpointConfigName", "Tags")
        arn = caller.arn(f"endpoint/{params['EndpointName']}")
        config = find(self.store, CONFIG, params["EndpointConfigName"], caller)
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
        """Answer UpdateEndpoint at once; the new fleet takes over in the background."""
        wire.only(
            "UpdateEndpoint",
            params,
            "EndpointName",
            "EndpointConfigName",
            "RetainAllVariantProperties",
            "DeploymentConfig",
        )
        with self.store.lock:
            record = find(self.store, ENDPOINT, params["EndpointName"], caller)
            self._settled(record)
            if record["EndpointStatus"] == "Failed":
                raise invalid(f'Cannot update failed endpoint "{record["EndpointArn"]}".')
            # A configuration deleted under its endpoint makes updates impossible, on AWS as well.
            find(self.store, CONFIG, record["EndpointConfigName"], caller)
            config = find(self.store, CONFIG, params["EndpointConfigName"], caller)
            pending = self._snapshot(config, caller)
            pending["deployment"] = params.get("DeploymentConfig")
            check_update(record, pending, caller)
            if params.get("RetainAllVariantProperties"):
                retain(record, pending)
            record.pop("FailureReason", None)
            record["_pending"] = pending
            self._set_status(record, "Updating")
        self._begin(record["EndpointArn"], self._update)
        return {"EndpointArn": record["EndpointArn"]}

    def describe_endpoint(self, params: Params, caller: Caller) -> Params:
        return wire.public(find(self.store, ENDPOINT, params["EndpointName"], caller))

    def list_endpoints(self, params: Params, caller: Caller) -> Params:
        return listed(self.store, ENDPOINT, "Endpoints", params, caller)

    def delete_endpoint(self, params: Params, caller: Caller) -> Params:
        """Answer DeleteEndpoint; its process ends, the log stays."""
        with self.store.lock:
            record = find(self.store, ENDPOINT, params["EndpointName"], caller)
            self._settled(record)
            self._set_status(record, "Deleting")
        self._begin(record["EndpointArn"], self._delete)
        return {}

    # For the runtime.

    def route(self, arn: str) -> Fleet:
        """Return the fleet for a request. Raises KeyError if the endpoint is not in service."""
        live = self.live[arn]
        blue, green = live.blue, live.green
        if blue is None:
            raise KeyError(arn)
        to_green = random.random() < live.share  # nosec B311 # traffic, no secret
        return green if green is not None and to_green else blue

    def objects_of(self, record: Record) -> RoleObjects:
        """Return S3's objects with the rights of an endpoint's execution role."""
        role = record["_deployed"]["variant"]["container"]["Role"]
        return RoleObjects(self.objects, role, owner_of(record))

    # Deployments, each in a thread of its own.

    def _begin(self, arn: str, work: Callable[[Record, Live], None]) -> None:
        record, live = self.store.all(ENDPOINT)[arn], self.live[arn]

        def run() -> None:
            try:
                work(record, live)
            except Exception as error:
                # Whatever fails, an endpoint must not stay in progress forever.
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
            fleet, instance = self._launch(record, live)
        except Failed as error:
            live.green = None
            self._fail(record, "Failed", str(error))
            return
        with self.store.lock:
            if self.closing:
                return
            live.blue, live.green = fleet, None
            self._deployed(record, record.pop("_pending"), instance)

    def _update(self, record: Record, live: Live) -> None:
        try:
            fleet, instance = self._launch(record, live)
            self._shift(record, live)
        except Failed as error:
            self._roll_back(record, live, str(error))
            return
        with self.store.lock:
            if self.closing:
                return
            old, live.blue, live.green, live.share = live.blue, fleet, None, 0.0
            self._deployed(record, record.pop("_pending"), instance)
        live.dismiss(old)

    def _launch(self, record: Record, live: Live) -> tuple[Fleet, str]:
        """Start the pending fleet and wait until it is healthy. Raises Failed."""
        pending, instance = record["_pending"], f"i-0{secrets.token_hex(8)}"
        fleet = live.green = self._fleet(record, pending, instance)
        if self.closing:
            raise Failed("The sandbox is ending")
        try:
            fleet.container.start()
        except ServingFailed as error:
            url = pending["variant"]["container"]["ModelDataUrl"]
            reason = REASONS.get(error.problem, error.problem)
            fleet.end()
            raise Failed(reason.format(variant=fleet.variant, url=url)) from error
        return fleet, instance

    def _shift(self, record: Record, live: Live) -> None:
        """Shift the traffic to the new fleet. Raises Failed when an alarm fires."""
        deployment = record["_pending"].get("deployment") or {}
        begun = clock.now()
        for share, wait in steps(deployment):
            live.share = share
            self._wait(record, deployment, wait, begun)

    def _wait(self, record: Record, deployment: Params, seconds: float, begun: float) -> None:
        names = [
            alarm["AlarmName"]
            for alarm in deployment.get("AutoRollbackConfiguration", {}).get("Alarms", [])
        ]
        end = time.monotonic() + seconds * self.metrics.pace
        while True:
            found = self.metrics.alarmed(names, owner_of(record), begun)
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
        self._fail(record, "InService", reason)

    def _delete(self, record: Record, live: Live) -> None:
        for fleet in live.fleets():
            fleet.container.end()
        with self.store.lock:
            if self.closing:
                return
            self.store.delete(ENDPOINT, record["EndpointArn"])
            self.live.pop(record["EndpointArn"], None)
        for target in scalable_targets(record):
            target.applicationautoscaling_backend.deregister_scalable_target(
                target.service_namespace, target.resource_id, target.scalable_dimension
            )
        self.on_deleted()

    # Records.

    def _snapshot(self, config: Record, caller: Caller) -> Record:
        """Return a copy of a configuration, which may be deleted during a deployment."""
        [variant] = config["ProductionVariants"]
        model = find(self.store, MODEL, variant["ModelName"], caller)
        return {
            "config": config["EndpointConfigName"],
            "variant": {**variant, "container": model["_container"]},
            **pick(config, "AsyncInferenceConfig", "DataCaptureConfig"),
        }

    def _fleet(self, record: Record, deployed: Record, instance: str) -> Fleet:
        owner, described = owner_of(record), deployed["variant"]
        name, container = described["VariantName"], described["container"]
        folder = self.folder / record["EndpointName"]
        folder.mkdir(parents=True, exist_ok=True)
        if self.store.get(SERVING_LOG, instance) is None:
            log = {
                "Account": owner.account,
                "Region": owner.region,
                "Group": f"{LOG_GROUP}{record['EndpointName']}",
                "Stream": f"{name}/{instance}",
                "File": f"{record['EndpointName']}/{instance}.log",
                "Role": container["Role"],
            }
            self.store.put(SERVING_LOG, instance, log)
        process = Container(
            folder / instance,
            folder / f"{instance}.log",
            container["Image"],
            lambda: archive(self.objects, container, owner),
            container["Environment"],
            owner.region,
        )
        return Fleet(name, process, int(described.get("InitialInstanceCount", 1)))

    def _deployed(self, record: Record, pending: Record, instance: str) -> None:
        record["EndpointConfigName"] = pending["config"]
        record["ProductionVariants"] = [_shown(pending["variant"])]
        record.pop("AsyncInferenceConfig", None)
        record.pop("DataCaptureConfig", None)
        record.update(pick(pending, "AsyncInferenceConfig"))
        capture = pending.get("DataCaptureConfig")
        if capture:
            record["DataCaptureConfig"] = {
                "EnableCapture": bool(capture.get("EnableCapture")),
                "CurrentSamplingPercentage": capture["InitialSamplingPercentage"],
                "DestinationS3Uri": capture["DestinationS3Uri"],
            }
        record["_deployed"], record["_instance"] = pending, instance
        self._set_status(record, "InService")

    def _fail(self, record: Record, status: str, reason: str) -> None:
        with self.store.lock:
            if self.closing:
                return
            record.pop("_pending", None)
            record["FailureReason"] = reason[:LONGEST_REASON]
            self._set_status(record, status)

    def _set_status(self, record: Record, status: str) -> None:
        record["EndpointStatus"] = status
        record["LastModifiedTime"] = time.time()
        self.store.put(ENDPOINT, record["EndpointArn"], record)

    def _settled(self, record: Record) -> None:
        if record["EndpointStatus"] not in ("InService", "Failed"):
            raise invalid(f'Cannot update in-progress endpoint "{record["EndpointArn"]}".')


def _shown(variant: Params) -> Params:
    """Return what DescribeEndpoint shows of a variant."""
    name = variant["VariantName"]
    if "ServerlessConfig" in variant:
        # As the service shows it: zero, not a missing member.
        return {"VariantName": name, "CurrentInstanceCount": 0}
    count = variant["InitialInstanceCount"]
    return {"VariantName": name, "CurrentInstanceCount": count, "DesiredInstanceCount": count}
