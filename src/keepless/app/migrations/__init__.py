"""Migrations of the schema (alembic). A test holds that their sum is what the tables declare."""
