"""CloudFormation of the sandbox: stacks whose every status, event and rollback can be watched.

Read in this order: `operations` (the API), `engine` (one operation on one stack), `providers` (a
resource type each), then `template`, `expressions`, `changes` and `schemas`, which only compute.
"""

from sandbox.cloudformation.operations import Stacks as Stacks

__all__ = ["Stacks"]
