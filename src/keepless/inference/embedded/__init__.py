"""Engines that Keepless runs itself, each in a subprocess."""
