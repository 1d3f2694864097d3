"""The resource types that the sandbox can make, by name.

Every call goes to the sandbox's own address, so it meets the same checks as anybody's. To add a
type whose properties are those of its create operation, an entry made by `calls.api` is enough.
"""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation.calls import Provider
from sm_mlops.sandbox.cloudformation.resources import (
    iam,
    integration,
    messaging,
    s3,
    sagemaker,
    settings,
)

PROVIDERS: dict[str, Provider] = {
    **sagemaker.PROVIDERS,
    **iam.PROVIDERS,
    **messaging.PROVIDERS,
    **s3.PROVIDERS,
    **settings.PROVIDERS,
    **integration.PROVIDERS,
}
