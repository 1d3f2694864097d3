"""The `mlops` command, what it talks to, and the library that `model/` builds on.

Importable without its own metadata: the code bundle of a job carries only parts of it.
"""
