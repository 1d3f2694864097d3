"""Connects a repo to AWS and GitHub: parts that look, then act."""
