"""Spec tests: flows run against scripted or recorded replies, without a model.

pytest imports this package whenever it runs, so nothing is imported here.
"""
