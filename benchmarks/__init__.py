"""Speed and cost, measured side by side with peers in one run. `python -m benchmarks --help`; see README.md."""
