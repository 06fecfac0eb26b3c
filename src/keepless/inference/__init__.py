"""INFER: engines behind one Protocol, in memory only; cannot see the vault."""
