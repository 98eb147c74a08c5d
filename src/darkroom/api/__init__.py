"""The HTTP side: Segmind's API."""
