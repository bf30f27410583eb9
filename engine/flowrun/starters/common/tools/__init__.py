"""The functions that the specs of this project call."""
