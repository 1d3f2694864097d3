"""CloudFormation of the sandbox: stacks whose every status, event and rollback can be watched.

Read in this order: `operations` (the API), `targets` (what it refuses), `engine` (one operation on
one stack), `providers` (the resource types); then `template`, `parameters`, `expressions`,
`changes` and `schemas`, which only compute. `ledger` keeps, `protocol` speaks, `calls` is what
every provider needs.
"""

from sm_mlops.sandbox.cloudformation.operations import Stacks as Stacks

__all__ = ["Stacks"]
