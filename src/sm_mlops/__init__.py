"""The `mlops` command: everything here that talks to AWS."""
