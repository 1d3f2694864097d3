"""GitHub on this machine, as far as a model repo uses it.

`service` answers requests. `accounts` and `access` know identities and permissions, `answers` how
GitHub words things, `routes` the REST API, `git` the repositories' content. Nothing here knows AWS.
"""
