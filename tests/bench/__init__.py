"""Benchmarks: figures side by side from one run, as ratios. ``make bench`` prints them; no test asserts a time."""
