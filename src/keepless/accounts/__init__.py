"""Organizations, projects, keys, roles, and how every process learns of a change."""
