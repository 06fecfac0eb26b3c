"""Keepless: an inference platform that keeps nothing it does not have to, and can prove it."""

__version__ = "0.1.0"
