"""The engine: the model's stages. The only package that imports torch."""
