"""Spec tests: flows run against scripted or recorded replies, without a model.

pytest imports this package in every run, so this module imports nothing.
"""
