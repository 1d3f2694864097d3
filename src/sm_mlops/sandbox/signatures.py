"""Who sends a request to AWS: its signature, verified with botocore's own signer.

Knows keys and their secrets, nothing of what their owners may do. Presigned addresses are not
implemented.
Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from sm_mlops.sandbox import calls, client, identities
from sm_mlops.sandbox.identities import OWNER
from sm_mlops.sandbox.replies import read
from sm_mlops.sandbox.wire import ApiError, Caller

ACCOUNT = "123456789012"
UNSIGNED = "unsigned"
LONGEST_FORM = 1 << 16
SKEW_SECONDS = 15 * 60
FIELD = re.compile(r"(\w+)=([^,\s]+)")
WITHOUT_HASH = ("UNSIGNED-PAYLOAD", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")
INVALID = "The security token included in the request is invalid."
# By what is wrong: the codes of S3, of services that answer with XML, of those with JSON; words.
ERRORS = {
    "missing": (
        "AccessDenied MissingAuthenticationToken MissingAuthenticationTokenException",
        "Missing Authentication Token",
    ),
    "incomplete": (
        "AuthorizationHeaderMalformed IncompleteSignature IncompleteSignatureException",
        "A signature needs Credential, SignedHeaders, Signature and X-Amz-Date",
    ),
    "key": ("InvalidAccessKeyId InvalidClientTokenId UnrecognizedClientException", INVALID),
    "token": ("InvalidToken InvalidClientTokenId UnrecognizedClientException", INVALID),
    "ended": (
        "ExpiredToken ExpiredToken ExpiredTokenException",
        "The security token included in the request is expired",
    ),
    "skewed": (
        "RequestTimeTooSkewed SignatureDoesNotMatch InvalidSignatureException",
        "Signature expired or not yet current: its time differs by more than 15 minutes",
    ),
    "signature": (
        "SignatureDoesNotMatch SignatureDoesNotMatch InvalidSignatureException",
        "The request signature we calculated does not match the signature you provided. Check your "
        "AWS Secret Access Key and signing method.",
    ),
    "payload": (
        "XAmzContentSHA256Mismatch SignatureDoesNotMatch InvalidSignatureException",
        "The header x-amz-content-sha256 does not match the body",
    ),
}
# What S3 answers with status 400.
BAD_REQUESTS = ("incomplete", "token", "ended", "payload")


class Unverified(Exception):
    """A request to `service` whose signature is wrong or missing; `what` is a key of ERRORS."""

    def __init__(self, what: str, service: str = "") -> None:
        super().__init__(what)
        self.what, self.service = what, service

    def answer(self, environ: dict[str, Any]) -> ApiError:
        """Return the error in the words of the service."""
        codes, words = ERRORS[self.what]
        s3 = self.service == "s3"
        form = 0 if s3 else 1 if calls.xml(self.service, environ) else 2
        return ApiError(
            codes.split()[form], words, 400 if s3 and self.what in BAD_REQUESTS else 403
        )


@dataclass(frozen=True)
class Claim:
    """What a request says about its signature."""

    key: str
    region: str
    service: str
    signature: str
    made: str
    token: str
    headers: tuple[str, ...]


class Signatures:
    """Verifies the requests to one server: `key` is its account's, `token` that of its own clients,
    which act for any key."""

    def __init__(self, key: client.Key, token: str, region: str) -> None:
        self.key, self.token, self.region = key, token, region

    def sender(self, environ: dict[str, Any]) -> tuple[str, Caller]:
        """Return the service and the sender of a request, whose body can be read afterwards.

        Raises Unverified, with the service.
        """
        # What nobody has signed looks like a form to STS, or like an object's address.
        at_root = environ.get("PATH_INFO", "/") == "/"
        service = "sts" if at_root or environ.get("HTTP_X_AMZ_TARGET") else "s3"
        try:
            claim = claimed(environ)
            if claim is not None:
                service = claim.service
                return service, self._verified(environ, claim)
            # Its token tells who sends it.
            if at_root and _action(environ) == "AssumeRoleWithWebIdentity":
                return service, Caller(ACCOUNT, self.region, UNSIGNED)
            raise Unverified("missing")
        except Unverified as error:
            error.service = service
            raise

    def _verified(self, environ: dict[str, Any], claim: Claim) -> Caller:
        caller = self._caller(claim)
        if client.same(environ.get("HTTP_X_SANDBOX_TOKEN", ""), self.token):
            read(environ)
            return caller
        owner = caller.access_key == OWNER
        found = (self.key.secret, "", None) if owner else identities.secret_of(caller)
        if found is None:
            raise Unverified("key")
        secret, token, ends = found
        if not client.same(claim.token, token):
            raise Unverified("token" if claim.token else "key")
        if ends is not None and ends < time.time():
            raise Unverified("ended")
        _check_time(claim)
        _check(claim, ReadOnlyCredentials(claim.key, secret, token or None), environ)
        return caller

    def _caller(self, claim: Claim) -> Caller:
        region = claim.region or self.region
        if claim.key in (self.key.id, OWNER):
            return Caller(ACCOUNT, region, OWNER)
        # Imported late: the first answer of a new server does not wait for all of IAM.
        from moto.iam.models import get_account_id_from

        return Caller(get_account_id_from(claim.key), region, claim.key)


def claimed(environ: dict[str, Any]) -> Claim | None:
    """Return what a request claims, None without any signature. Raises Unverified."""
    header = environ.get("HTTP_AUTHORIZATION", "")
    if not header:
        return None
    found = dict(FIELD.findall(header))
    made, token = environ.get("HTTP_X_AMZ_DATE", ""), environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
    credential = found.get("Credential", "").split("/")
    headers = tuple(found.get("SignedHeaders", "").split(";"))
    signature = found.get("Signature", "")
    if len(credential) != 5 or not (signature and made and "host" in headers):
        raise Unverified("incomplete")
    key, _, region, service, _ = credential
    return Claim(key, region, service, signature, made, token, headers)


def _action(environ: dict[str, Any]) -> str:
    form = environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded")
    long = int(environ.get("CONTENT_LENGTH") or 0) > LONGEST_FORM
    # Others than this form could lead to another service.
    if not form or long or environ.get("QUERY_STRING") or environ.get("HTTP_X_AMZ_TARGET"):
        return ""
    pairs = parse_qsl(read(environ).decode("utf-8", "replace"))
    return next((value for name, value in pairs if name == "Action"), "")


def _check_time(claim: Claim) -> None:
    try:
        made = datetime.strptime(claim.made, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise Unverified("incomplete") from error
    if abs(made - time.time()) > SKEW_SECONDS:
        raise Unverified("skewed")


def _check(claim: Claim, credentials: ReadOnlyCredentials, environ: dict[str, Any]) -> None:
    """Compare signature and body with what the owner of these credentials would have sent."""
    s3 = claim.service == "s3"
    path, query = environ["REQUEST_URI"].partition("?")[0], environ.get("QUERY_STRING", "")
    given = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    digest = hashlib.sha256(read(environ)).hexdigest()
    kind = S3SigV4Auth if s3 else SigV4Auth
    signer: Any = kind(credentials, claim.service, claim.region)
    signer.payload = lambda request: given or digest
    headers = {name: _header(environ, name) for name in claim.headers}
    url = f"http://{environ['HTTP_HOST']}{path}?{query}"
    request = AWSRequest(environ["REQUEST_METHOD"], url, headers)
    request.context["timestamp"] = claim.made
    text = signer.string_to_sign(request, signer.canonical_request(request))
    expected = signer.signature(text, request)
    if not client.same(claim.signature, expected):
        raise Unverified("signature")
    if given not in ("", digest) and not (s3 and given in WITHOUT_HASH):
        raise Unverified("payload")


def _header(environ: dict[str, Any], name: str) -> str:
    key = name.upper().replace("-", "_")
    in_cgi = key in ("CONTENT_TYPE", "CONTENT_LENGTH")
    value: str = environ.get(key if in_cgi else f"HTTP_{key}", "")
    return value.encode("latin-1").decode("utf-8", "replace")
