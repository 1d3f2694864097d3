"""Checks of deployed stages: their pipeline, their results, and what `mlops monitor` does."""
