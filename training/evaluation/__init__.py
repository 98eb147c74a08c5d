"""What a checkpoint's edits are worth: unseen scenes, edits of them through the HTTP API, figures and bars."""
