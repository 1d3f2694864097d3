"""CloudFormation's protocol: requests are forms and answers XML.

Uses moto's implementation of AWS's query protocol, with botocore's model. Knows no operation.
"""

from __future__ import annotations

import functools
import logging
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from moto.core.model import ServiceModel
from moto.core.parse import QueryParser
from moto.core.serialize import QuerySerializer, SerializationContext
from moto.core.utils import get_service_model

from sm_mlops.sandbox import wire
from sm_mlops.sandbox.wire import ApiError, Params

SERVICE = "cloudformation"
log = logging.getLogger(__name__)


@functools.cache
def _model() -> ServiceModel:
    return get_service_model(SERVICE)


def answer(
    body: bytes, operation: Callable[[str], Callable[[Params], Params]]
) -> tuple[int, bytes]:
    """Return the HTTP status and the XML that answer a request.

    `operation` returns the function that answers an operation, by name; both may raise ApiError.
    """
    form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    name = form.get("Action", "")
    known = name in _model().operation_names
    model = _model().operation_model(name if known else "DescribeStacks")
    writer = QuerySerializer(model, SerializationContext(str(uuid.uuid4())))
    try:
        if not known:
            raise ApiError("InvalidAction", f"Could not find operation {name}")
        request: Any = {"values": form}
        params = QueryParser(model).parse(request)
        handler = operation(name)
        _check(name, params)
        written = writer.serialize(handler(params))
    except ApiError as error:
        return error.status, _error(error).encode()
    except Exception as error:  # A defect of the sandbox's: clients read XML only.
        log.exception("%s", name)
        words = f"Internal error of the sandbox, see server.log: {error!r}"
        return 500, _error(ApiError("InternalFailure", words, 500)).encode()
    return written["status_code"], str(written["body"]).encode()


def _error(error: ApiError) -> str:
    fault = "Sender" if error.status < 500 else "Receiver"
    return (
        f'<ErrorResponse xmlns="{_model().metadata["xmlNamespace"]}"><Error><Type>{fault}</Type>'
        f"<Code>{error.code}</Code><Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    )


def _check(name: str, params: Params) -> None:
    try:
        wire.check(name, params, SERVICE)
    except ApiError as error:  # Same words as SageMaker's, another code.
        raise ApiError("ValidationError", error.message) from error
