"""Benchmarks: every contestant in its own process, measured in rounds, compared within a round."""
