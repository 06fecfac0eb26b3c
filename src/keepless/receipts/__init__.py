"""PROVE: a Merkle log, signed checkpoints, receipts that verify offline."""
