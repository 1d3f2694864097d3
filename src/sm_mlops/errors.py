"""Failures that a person can mend, told in one line: what, where, what to do next."""

from __future__ import annotations


class MlopsError(Exception):
    """Ends the command with its text on standard error and exit code 2, without a traceback."""


def explained(error: Exception, region: str) -> str | None:
    """One line for the errors of botocore that a person can mend; None for all others.

    Source: the error codes of https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
    """
    from boto3.exceptions import S3UploadFailedError
    from botocore import exceptions

    sign_in = (
        "sign in (aws sso login, or AWS_PROFILE=...), or add --sandbox to stay on this machine"
    )
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return f"no AWS credentials found: {sign_in}"
    if isinstance(error, exceptions.ProfileNotFound):
        return f"{error}: see aws configure list-profiles"
    # boto3's transfers put this in the place of the ClientError.
    if isinstance(error, S3UploadFailedError):
        return " ".join(str(error).split())
    if isinstance(
        error,
        exceptions.ConnectionError | exceptions.ConnectionClosedError | exceptions.ReadTimeoutError,
    ):
        return f"cannot reach AWS in {region}: {error}"
    if isinstance(
        error,
        exceptions.TokenRetrievalError
        | exceptions.SSOTokenLoadError
        | exceptions.UnauthorizedSSOTokenError,
    ):
        return f"the AWS sign-in is no longer valid: {sign_in}"
    if isinstance(error, exceptions.ClientError):
        code = error.response["Error"]["Code"]
        message = " ".join(error.response["Error"].get("Message", "").split())
        if code in (
            "ExpiredToken",
            "ExpiredTokenException",
            "InvalidClientTokenId",
            "RequestExpired",
        ):
            return f"the AWS sign-in is no longer valid: {sign_in}"
        return f"AWS refused {error.operation_name}: {code}: {message}"
    return None
