"""Darkroom: self-hosted image editing behind Segmind's API."""

__version__ = "0.1.0"
