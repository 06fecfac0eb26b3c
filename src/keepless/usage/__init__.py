"""Usage metadata: numbers, instants, enums and ids of ours, always recorded."""
