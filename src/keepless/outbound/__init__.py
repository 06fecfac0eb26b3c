"""Servers that a request or an owner names: connected to by the very address that was looked at, or not at all."""
