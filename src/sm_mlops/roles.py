"""Roles that were created a moment ago, which other services cannot assume yet.

Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html (eventual consistency)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

SECONDS = 15.0
ATTEMPTS = 4
Answer = TypeVar("Answer")


def awaited(attempt: Callable[[], Answer], say: Callable[[str], None]) -> Answer:
    """Return what `attempt` returns; repeat it while a service cannot assume the role it is given.

    A role that nobody trusts gets the service's own error after that.
    """
    from botocore.exceptions import ClientError

    for _ in range(ATTEMPTS - 1):
        try:
            return attempt()
        except ClientError as error:
            if "assume role" not in str(error):
                raise
            say("waiting    SageMaker cannot assume the pipeline's role yet")
            time.sleep(SECONDS)
    return attempt()
