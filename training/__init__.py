"""Makes the small checkpoint: a world of rendered scenes, and a model trained to edit pictures of it."""
