"""Ratios measured in one interleaved run, on one thread, as medians: `python -m bench` or `make bench`."""
