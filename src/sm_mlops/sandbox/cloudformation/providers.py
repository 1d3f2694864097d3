"""The resource types that the sandbox can make, by name.

Every call goes to the sandbox's own address, so it meets the same checks as any other. To add a
type whose properties are those of its create operation, an entry made by `calls.api` is enough.
"""

from __future__ import annotations

from sm_mlops.sandbox.cloudformation.calls import Provider
from sm_mlops.sandbox.cloudformation.resources import (
    catalog,
    functions,
    iam,
    messages,
    s3,
    sagemaker,
    secrets,
)

PROVIDERS: dict[str, Provider] = {
    **catalog.PROVIDERS,
    **functions.PROVIDERS,
    **iam.PROVIDERS,
    **messages.PROVIDERS,
    **s3.PROVIDERS,
    **sagemaker.PROVIDERS,
    **secrets.PROVIDERS,
}
