"""The canary prover: markers in, a search of everything that can hold a byte, a report."""
