"""Measurements of this package beside the ways one would otherwise run the same checkpoints."""
