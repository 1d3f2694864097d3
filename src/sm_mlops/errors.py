"""Errors that a person can fix, in one line: what, where, what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from sm_mlops.tabular.text import visible

_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "RequestExpired")
_SIGN_IN = "sign in (aws sso login, or AWS_PROFILE=...), or add --sandbox to stay on this machine"


class MlopsError(Exception):
    """Ends the command with its text on standard error and exit code 2, without a traceback."""


def one_line(text: object) -> str:
    """Return text from outside on one line that is safe to print."""
    return visible(" ".join(str(text).split()))


def hint(name: str, known: Iterable[str]) -> str:
    """Return a question about the closest known name, or the list of all."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"


def unreachable(error: Exception) -> bool:
    """Return whether an error of botocore says that nothing answers at the address."""
    from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

    return isinstance(error, ConnectionClosedError | EndpointConnectionError)


def explained(error: Exception, region: str) -> str | None:
    """Return one line for an error of botocore that a person can fix, None for any other.

    Source: the error codes of https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions as aws

    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError):
        return f"no AWS credentials found: {_SIGN_IN}"
    if isinstance(error, aws.ProfileNotFound):
        return f"{error}: see aws configure list-profiles"
    # boto3's transfers raise this instead of the ClientError.
    if isinstance(error, S3UploadFailedError):
        return one_line(error)
    if isinstance(error, aws.ConnectionError | aws.ConnectionClosedError | aws.ReadTimeoutError):
        return f"cannot reach AWS in {region}: {error}"
    if isinstance(
        error, aws.TokenRetrievalError | aws.SSOTokenLoadError | aws.UnauthorizedSSOTokenError
    ):
        return f"the AWS sign-in is no longer valid: {_SIGN_IN}"
    if isinstance(error, aws.ClientError):
        code = error.response["Error"]["Code"]
        if code in _EXPIRED:
            return f"the AWS sign-in is no longer valid: {_SIGN_IN}"
        message = one_line(error.response["Error"].get("Message", ""))
        return f"AWS refused {error.operation_name}: {code}: {message}"
    return None
