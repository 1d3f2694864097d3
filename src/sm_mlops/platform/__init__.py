"""CloudFormation of the account and of each project, and the trigger function: package data.

The platform has the tool's version. Whoever edits these files, as a company that forks the
template does, raises `_template_version` in `cookiecutter.json`: a tool never replaces what a tool
of a newer version has deployed, and replaces other content of its own version by its own.
"""

from importlib.resources import files
from pathlib import Path

from sm_mlops import version

__all__ = ["CAPABILITIES", "FOLDER", "STACK", "version"]

STACK, CAPABILITIES = "sm-mlops-platform", ("CAPABILITY_NAMED_IAM",)
FOLDER = Path(str(files(__name__)))
