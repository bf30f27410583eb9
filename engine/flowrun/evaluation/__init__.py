"""Evaluations: scores of results, their statistics, and comparisons."""
