"""What requests and templates are checked against: botocore's models and AWS's schemas, in full."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import regex

from sm_mlops.sandbox.cloudformation import schemas
from sm_mlops.sandbox.cloudformation.providers import PROVIDERS
from sm_mlops.sandbox.wire import java_pattern, service_model

CHECKED = ("cloudformation", "codeconnections", "events", "lambda", "sagemaker", "servicecatalog")


def unreadable(patterns: Iterator[str]) -> list[str]:
    found = []
    for pattern in sorted(set(patterns)):
        try:
            java_pattern(pattern)
        except regex.error:
            found.append(pattern)
    return found


def patterns(schema: Any) -> Iterator[str]:
    for name, value in schema.items() if isinstance(schema, dict) else enumerate(schema):
        if name == "pattern" and isinstance(value, str):
            yield value
        elif name == "patternProperties" and isinstance(value, dict):
            yield from value
        if isinstance(value, dict | list):
            yield from patterns(value)


@pytest.mark.parametrize("service", CHECKED)
def test_every_pattern_of_a_service_is_checked(service: str) -> None:
    model = service_model(service)
    shapes = [model.shape_for(name).metadata for name in model.shape_names]
    assert unreadable(shape["pattern"] for shape in shapes if "pattern" in shape) == []


def test_every_pattern_of_a_resource_type_is_checked() -> None:
    kinds = [kind for kind in PROVIDERS if schemas.exists(kind)]
    assert len(kinds) > 20
    assert unreadable(text for kind in kinds for text in patterns(schemas.schema(kind))) == []


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        (r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)", "größer als 0.9", "0.9, on 85 rows"),
        (r"[\u0020-\uD7FF\uE000-\uFFFD\uD800\uDC00-\uDBFF\uDFFF\r\n\t]*", "a 😀", "\x07"),
    ],
)
def test_a_pattern_means_what_it_means_in_java(pattern: str, fits: str, does_not: str) -> None:
    assert java_pattern(pattern).fullmatch(fits)
    assert not java_pattern(pattern).fullmatch(does_not)
