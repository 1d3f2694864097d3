"""GitHub on this machine, as far as a model repo uses it: `GitHub` answers, `Standalone` serves it.

`accounts` and `access` know who asks and what they may, `answers` how GitHub words things, `routes`
the REST API, `git` the repositories' content. Nothing here knows AWS.
"""

from sm_mlops.sandbox.github.service import GitHub as GitHub
from sm_mlops.sandbox.github.service import Standalone as Standalone

__all__ = ["GitHub", "Standalone"]
