"""CloudFormation of the account and of each project, and the trigger function: package data."""

from importlib.resources import files
from pathlib import Path

FOLDER = Path(str(files(__name__)))
