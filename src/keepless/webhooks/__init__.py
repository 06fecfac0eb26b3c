"""Telling customers' own servers that something ended: endpoints, the outbox, signed deliveries. Ids only."""
