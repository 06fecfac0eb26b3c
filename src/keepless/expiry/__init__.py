"""FORGET: what is due, sweep, purge, orphans, keys that end."""
