"""The caller and service of a request, from its signature. Verifies nothing."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from sm_mlops.sandbox import client
from sm_mlops.sandbox.wire import Caller

ACCOUNT = "123456789012"


def caller_of(environ: dict[str, Any], region: str) -> Caller:
    """Return account, region and key of a signature (Credential=KEY/DATE/REGION/SERVICE/...)."""
    parts = _credential(environ)
    if len(parts) != 5:
        return Caller(ACCOUNT, region, "")
    if parts[0] == client.ACCESS_KEY:
        return Caller(ACCOUNT, parts[2] or region, parts[0])
    # Imported late: the first answer of a new server does not wait for all of IAM.
    from moto.iam.models import get_account_id_from

    return Caller(get_account_id_from(parts[0]), parts[2] or region, parts[0])


def signed_for(environ: dict[str, Any]) -> str:
    """Return the service that a request was signed for, "" if it was not signed."""
    parts = _credential(environ)
    return parts[3] if len(parts) == 5 else ""


def _credential(environ: dict[str, Any]) -> list[str]:
    """Return key, date, region, service and end of a signature, from a header or from the query of
    a presigned URL."""
    header, query = environ.get("HTTP_AUTHORIZATION", ""), environ.get("QUERY_STRING", "")
    found: str = header.partition("Credential=")[2].split(",")[0]
    if not found and "X-Amz-Credential=" in query:
        found = unquote(query.partition("X-Amz-Credential=")[2].partition("&")[0])
    if not found and "AWSAccessKeyId=" in query:  # S3's older signatures name no region.
        key = unquote(query.partition("AWSAccessKeyId=")[2].partition("&")[0])
        found = f"{key}///s3/"
    return found.split("/")
