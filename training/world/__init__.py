"""The small world: its scenes, how they are rendered, and the edits asked of pictures of it."""
