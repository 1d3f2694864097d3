"""Claims: objects in S3 that only one invocation can create, so that nothing is done twice.

Events are delivered at least once, and one change may send several.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from registry import Ignored, TriggerError, client  # type: ignore[import-not-found]

# Longer than the functions' timeout: no one takes over from an invocation that still works.
CLAIM_SECONDS = 60
# How S3 refuses a conditional write.
_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict")


class Claim:
    """The right to do something, once or from time to time.

    What was done is recorded with `about`. `is_due` tells from the record of the last time whether
    it may be done again; by default it never may.
    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
    """

    def __init__(
        self,
        key: str,
        is_due: Callable[[dict[str, Any]], bool] = lambda _: False,
        about: str = "",
    ) -> None:
        self._place = {"Bucket": os.environ["CLAIMS_BUCKET"], "Key": key}
        self._is_due, self._about = is_due, about
        self._last: dict[str, Any] | None = None

    def once(self, work: Callable[[], str], again: bool = False) -> str:
        """Do the work and return what it returns. Raise Ignored if it was done before.

        If the work fails, everything is as it was, so that a retry can do it.
        """
        if again:
            self._delete()
        if not self.take():
            raise Ignored("started before, for this same event")
        try:
            run = work()
        except BaseException:
            self.forget()
            raise
        try:
            self.keep(run)
        except (BotoCoreError, ClientError) as error:
            # Without raising: a retry would do it again.
            print(f"{self._place['Key']}: done, but that could not be recorded: {error}")
        return run

    def take(self) -> bool:
        """Return False if it was done before. Raise TriggerError if one is about to do it."""
        if self._write("claimed", IfNoneMatch="*"):
            return True
        try:
            found = client("s3").get_object(**self._place)
        except ClientError as error:
            # The role may list these keys only, so S3 may report a missing one as forbidden.
            if error.response["Error"]["Code"] not in ("NoSuchKey", "AccessDenied"):
                raise
            raise TriggerError("another invocation has just failed to start it") from error
        content = json.loads(found["Body"].read())
        if content["state"] == "started":
            if not self._is_due(content):
                return False
            self._last = content
        elif time.time() - content["at"] < CLAIM_SECONDS:
            raise TriggerError("another invocation is about to start it")
        elif content.get("about", "") != self._about and not self._is_due(content):
            # It may have been done and not recorded.
            return False
        else:
            self._last = content.get("last")
        if not self._write("claimed", IfMatch=found["ETag"]):
            raise TriggerError("another invocation has taken it over")
        return True

    def keep(self, run: str) -> None:
        self._last = None
        self._write("started", run=run)

    def forget(self) -> None:
        """Restore the record of the last time, if there is one."""
        if self._last is None:
            self._delete()
        else:
            self._put(self._last)

    def _delete(self) -> None:
        client("s3").delete_object(**self._place)

    def _write(self, state: str, run: str = "", **condition: str) -> bool:
        record = {"state": state, "at": time.time(), "run": run, "about": self._about}
        try:
            self._put(record | ({"last": self._last} if self._last else {}), **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] not in _TAKEN:
                raise
            return False
        return True

    def _put(self, record: dict[str, Any], **condition: str) -> None:
        client("s3").put_object(**self._place, Body=json.dumps(record).encode(), **condition)
