"""KEEP: the one door to anything that is stored of a customer."""
