"""The sandbox's CloudFormation: stacks with every status, event and rollback.

Read in this order: `operations` (the API), `targets` (what it refuses), `runner` and `engine` (one
operation on one stack), `steps` (one resource), `providers` (the resource types); then `template`,
`parameters`, `expressions`, `changes` and `schemas`, which only compute. `ledger` stores records,
`protocol` reads requests and writes answers, `calls` has what every provider needs.
"""

from sm_mlops.sandbox.cloudformation.operations import Stacks as Stacks

__all__ = ["Stacks"]
