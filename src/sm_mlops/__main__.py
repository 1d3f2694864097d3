"""`python -m sm_mlops` is `mlops`."""

from sm_mlops.cli.main import main

main()
