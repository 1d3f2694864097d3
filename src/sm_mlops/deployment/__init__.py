"""Bring versions to stages, test them there, and take stages away."""
