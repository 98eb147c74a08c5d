"""LoRA files: where they come from, what is in them, and how they are kept. Without torch."""
