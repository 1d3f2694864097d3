"""GitHub on this machine, as far as a model repo uses it.

`service` is its front door. `accounts` and `access` know who asks and what they may, `answers` how
GitHub words things, `routes` the REST API, `git` the repositories' content. Nothing here knows AWS.
"""
