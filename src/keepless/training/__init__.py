"""Making an adapter out of examples: a process of its own that does it, and the way to it."""
