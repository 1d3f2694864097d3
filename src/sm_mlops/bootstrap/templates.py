"""The template that a project has, and the one it should have: the tool's own, or the newest that
the platform offers if a newer tool has deployed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sm_mlops import platform as package
from sm_mlops import stacks
from sm_mlops.aws import Aws
from sm_mlops.bootstrap import assets, catalog, platform
from sm_mlops.bootstrap.catalog import ProductVersion
from sm_mlops.errors import MlopsError
from sm_mlops.projects import Found


@dataclass(frozen=True)
class Templates:
    """The templates that the platform offers, by their keys in the artifact bucket. `newer`: a
    newer tool has deployed the platform."""

    aws: Aws
    bucket: str
    known: Sequence[ProductVersion]
    newer: bool

    @property
    def wanted(self) -> str:
        """The template to use; bootstrap has the platform offer it first."""
        newest = catalog.newest(self.known) if self.newer else None
        return newest.template if newest else assets.build().template

    def offered(self) -> ProductVersion:
        """Return the version of the product with that template. Raise MlopsError."""
        found = catalog.version_with(self.known, self.wanted) or catalog.newest(self.known)
        if found is None:
            raise MlopsError(f"the product of {platform.STACK} has no version")
        return found

    def address(self) -> str:
        """Return the address of that template. Raise MlopsError."""
        return platform.object_url(self.aws, self.bucket, self.offered().template)

    def upgrade(self, found: Found) -> str:
        """Return in words which template replaces that of a project; empty for none.

        A newer one stays, as does one that was added by hand.
        """
        had, wanted = self._of(found), self.wanted
        if had in ("", wanted):
            return ""
        before, after = assets.version_of(had), assets.version_of(wanted)
        theirs, ours = platform.version(before), platform.version(package.version())
        if theirs > ours or (theirs == ours and self.newer):
            return ""
        return f"version {before} -> {after}" if before != after else f"different files of {after}"

    def _of(self, found: Found) -> str:
        if not found.provisioned:
            return assets.template_in(found.template_url)
        at = catalog.version_of(self.aws, found.provisioned)
        return next((item.template for item in self.known if item.identifier == at), "")


def look(aws: Aws) -> Templates:
    """Return what the platform offers; nothing if there is no platform yet."""
    stack = stacks.describe(aws, platform.STACK)
    if stack is None or not stack.outputs.get("ProductId"):
        return Templates(aws, "", (), False)
    known = catalog.versions(aws, stack.outputs["ProductId"])
    newer = platform.is_newer(stack.parameters)
    return Templates(aws, stack.outputs["ArtifactBucket"], known, newer)
