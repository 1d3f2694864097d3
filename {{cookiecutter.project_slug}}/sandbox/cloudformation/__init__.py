"""CloudFormation of the sandbox: stacks whose every status, event and rollback can be watched.

Read in this order: `operations` (the API), `targets` (what it refuses), `engine` (one operation on
one stack), `providers` and `integration_providers` (the resource types); then `template`,
`parameters`, `expressions`, `changes` and `schemas`, which only compute. `ledger` keeps, `protocol`
speaks, `calls` is what every provider needs.
"""

from sandbox.cloudformation import integration_providers, providers
from sandbox.cloudformation.operations import Stacks as Stacks

providers.PROVIDERS.update(integration_providers.PROVIDERS)

__all__ = ["Stacks"]
