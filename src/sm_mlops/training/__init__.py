"""Compile, start, follow and review executions of the training pipeline."""
