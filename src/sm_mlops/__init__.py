"""The `mlops` command, what it talks to, and the library that `model/` builds on.

Importable without its own metadata: the code bundle of a job carries only parts of it.
"""


def version() -> str:
    """Return the version of this tool, which is that of the template it was made from."""
    import importlib.metadata

    return importlib.metadata.version("sm-mlops")
