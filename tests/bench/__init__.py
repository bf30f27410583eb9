"""Benchmarks: engines are compared in the same run, as ratios. ``make bench`` prints them; no test asserts a time."""
