"""Bring versions to stages, test them there, and delete stages."""
