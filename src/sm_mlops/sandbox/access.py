"""The objects of S3 with the permissions of a role, for services that act for it."""

from __future__ import annotations

from pathlib import Path

from sm_mlops.sandbox.objects import NoSuchObject, Objects
from sm_mlops.sandbox.policies import check_role, may
from sm_mlops.sandbox.wire import Caller, partition


class NoAccess(NoSuchObject):
    """The role lacks the permission; the message is one line."""


class RoleObjects:
    """Reads and writes objects with the permissions of a role. Raises NoSuchObject and NoAccess,
    and ApiError if the role no longer exists."""

    def __init__(self, objects: Objects, role: str, caller: Caller) -> None:
        self.objects, self.role, self.caller = objects, role, caller

    def path(self, bucket: str, key: str) -> Path:
        """Return the file with an object's content; do not change it."""
        self._check("s3:GetObject", bucket, key)
        return self.objects.path(bucket, key)

    def find(self, bucket: str, prefix: str) -> list[str]:
        """Return the keys that start with a prefix, sorted."""
        self._check("s3:ListBucket", bucket, "", prefix)
        return self.objects.find(bucket, prefix)

    def put(self, bucket: str, key: str, source: Path, move: bool = False) -> None:
        """Store a file as an object; with `move` the file itself becomes the object."""
        self._check("s3:PutObject", bucket, key)
        self.objects.put(bucket, key, source, move)

    def _check(self, action: str, bucket: str, key: str, prefix: str = "") -> None:
        found = self.objects.bucket(bucket)
        if not may(check_role(self.role, self.caller), action, found, key, self.caller, prefix):
            resource = f"arn:{partition(self.caller.region)}:s3:::{bucket}"
            resource = f"{resource}/{key}" if key else resource
            words = f'is not authorized to perform: {action} on resource: "{resource}"'
            raise NoAccess(f"AccessDenied (403): User: {self.role} {words}")
