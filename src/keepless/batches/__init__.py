"""Batches as rows: what was asked, how far it is, how it ended. Not what is in them."""
