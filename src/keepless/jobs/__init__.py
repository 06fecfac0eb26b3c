"""Durable jobs: what survives the death of the process that runs it."""
