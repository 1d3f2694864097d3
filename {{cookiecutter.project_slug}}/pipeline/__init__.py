"""Turns the scripts in `model/` into a SageMaker Pipeline definition. Talks to no service."""
