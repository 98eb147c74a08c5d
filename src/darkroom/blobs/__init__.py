"""Kept bytes: input pictures and results."""
