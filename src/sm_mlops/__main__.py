"""`python -m ops` is `mlops`."""

from ops.cli import main

main()
