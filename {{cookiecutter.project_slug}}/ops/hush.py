"""Keeps secrets out of logs while they are sent or read: botocore logs requests and answers in full
when debugging is on.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hushed() -> Iterator[None]:
    """Nobody logs anything meanwhile, whatever its own level is."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
