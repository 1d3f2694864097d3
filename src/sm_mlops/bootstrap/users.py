"""Who uses the platform besides this repo: it is deleted only after the last of them."""

from __future__ import annotations

from botocore.exceptions import ClientError

from sm_mlops import projects
from sm_mlops.aws import Aws, error_code
from sm_mlops.bootstrap import catalog, platform


def others(aws: Aws) -> list[str]:
    """Return the names of the stacks that use the platform, without this repo's project."""
    there = platform.outputs(aws)
    if there is None:
        return []
    own = projects.find(aws)
    users = set(_importers(aws, "sm-mlops-BoundaryArn"))
    if product := there.get("ProductId"):
        users |= set(catalog.provisioned(aws, product))
    return sorted(users - {own.stack.name if own and own.stack else ""})


def _importers(aws: Aws, export: str) -> list[str]:
    try:
        pages = aws.client("cloudformation").get_paginator("list_imports")
        return [name for page in pages.paginate(ExportName=export) for name in page["Imports"]]
    except ClientError as error:
        unused = any(words in str(error) for words in ("not imported", "does not exist"))
        if error_code(error) != "ValidationError" or not unused:
            raise
        return []
