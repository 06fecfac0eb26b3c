"""The command line: for people with rich tables, for scripts with `--json`."""
