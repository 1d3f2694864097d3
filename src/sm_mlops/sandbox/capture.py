"""Stores requests to endpoints and their answers in S3, as DataCaptureConfig says.

The layout is that of AWS's page "Data capture": one JSON object per line, folders by hour.
"""

from __future__ import annotations

import base64
import json
import logging
import random
import threading
import time
import uuid
from typing import Any

from sm_mlops.sandbox import clock
from sm_mlops.sandbox.access import RoleObjects
from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.serving import Answer
from sm_mlops.sandbox.storage import Record
from sm_mlops.sandbox.wire import ApiError, Caller

PAUSE_SECONDS = 1.0
log = logging.getLogger(__name__)


class Capture:
    """Collects events and writes them once a second, and when the sandbox ends, with the
    permissions of the endpoint's role."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects
        self._lock = threading.Lock()
        self._events: dict[tuple[str, str, str], list[str]] = {}
        self._timer: threading.Timer | None = None

    def keep(
        self,
        record: Record,
        variant: str,
        content_type: str,
        body: bytes,
        answer: Answer,
        inference: str | None,
    ) -> None:
        """Collect one invocation, if the endpoint captures and the sample includes it."""
        shown = record.get("DataCaptureConfig")
        if not shown or not shown["EnableCapture"]:
            return
        drawn = random.random() * 100  # nosec B311 # a sample, no secret
        if drawn >= shown["CurrentSamplingPercentage"]:
            return
        config = record["_deployed"]["DataCaptureConfig"]
        modes = {option["CaptureMode"] for option in config["CaptureOptions"]}
        both = "InputAndOutput" in modes
        data = {}
        if both or "Input" in modes:
            data["endpointInput"] = _part("INPUT", content_type, body, config)
        if both or "Output" in modes:
            kind = answer.headers.get("Content-Type") or ""
            data["endpointOutput"] = _part("OUTPUT", kind, answer.body, config)
        now = time.gmtime(clock.now())
        event = {
            "captureData": data,
            "eventMetadata": {
                "eventId": str(uuid.uuid4()),
                **({"inferenceId": inference} if inference else {}),
                "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", now),
            },
            "eventVersion": "0",
        }
        hour = time.strftime("%Y/%m/%d/%H", now)
        root = f"{shown['DestinationS3Uri'].rstrip('/')}/{record['EndpointName']}/{variant}/{hour}"
        role = record["_deployed"]["variant"]["container"]["Role"]
        place = (root, role, record["EndpointArn"].split(":")[3])
        with self._lock:
            self._events.setdefault(place, []).append(json.dumps(event))
            if self._timer is None:
                self._timer = threading.Timer(PAUSE_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        with self._lock:
            events, self._events, self._timer = self._events, {}, None
        for (root, role, region), lines in events.items():
            path = self.objects.files.temporary()
            path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            bucket, _, prefix = root.removeprefix("s3://").partition("/")
            name = f"{time.strftime('%M-%S', time.gmtime(clock.now()))}-000-{uuid.uuid4()}.jsonl"
            try:
                owner = Caller(role.split(":")[4], region, "")
                RoleObjects(self.objects, role, owner).put(
                    bucket, f"{prefix}/{name}", path, move=True
                )
            except (NoSuchObject, ApiError) as error:
                log.warning("data capture: %s", error)
                path.unlink()


def _part(mode: str, content_type: str, body: bytes, config: Record) -> dict[str, Any]:
    kinds = config.get("CaptureContentTypeHeader", {})
    plain = content_type.partition(";")[0].strip().lower()
    encoding = "BASE64"
    if plain in kinds.get("CsvContentTypes", ["text/csv"]):
        encoding = "CSV"
    elif plain in kinds.get("JsonContentTypes", ["application/json", "application/jsonlines"]):
        encoding = "JSON"
    try:
        data = base64.b64encode(body).decode() if encoding == "BASE64" else body.decode()
    except UnicodeDecodeError:
        encoding, data = "BASE64", base64.b64encode(body).decode()
    return {"observedContentType": content_type, "mode": mode, "data": data, "encoding": encoding}
