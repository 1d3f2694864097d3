"""Connects a repo with AWS and GitHub: parts that look, then act."""
