"""The version of this package, from which the build takes it too."""

__version__ = "0.2.0"
