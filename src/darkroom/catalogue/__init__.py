"""The models, one card each."""
