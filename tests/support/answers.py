"""Answers at the edge of what the questions take, and the hook's last words."""

import os

LONGEST = {
    "project_name": "W" * 64,
    "project_slug": "w" * 64,
    "description": "W" * 200,
    "author": "W" * 100,
    "github_owner": "w" * 39,
    "github_repo": "w" * 100,
    "aws_region": "ap-southeast-1",
    "sagemaker_project": "w" * 32,
}
SHORTEST = {
    "project_name": "W",
    "project_slug": "w",
    "description": "W",
    "author": "W",
    "github_owner": "w",
    "github_repo": "w",
    "aws_region": "us-east-1",
    "sagemaker_project": "w",
}
FINISH = "cd my-model && make setup && .venv/bin/mlops bootstrap"
NOBODY = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "PYTHONDONTWRITEBYTECODE": "1",  # So that the render stays as it was rendered.
    **dict.fromkeys(("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "GITHUB_TOKEN", "GH_TOKEN"), ""),
}
