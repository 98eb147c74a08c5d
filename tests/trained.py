"""Trained weights, for tests of what random ones don't show."""

from pathlib import Path

TRAINED = Path(__file__).parents[1] / "training" / "start"
"""A folder whose vae/ has learnt to see."""
