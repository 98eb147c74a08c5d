"""The worker: a process that claims jobs, has the engine make them, and says how it goes."""
