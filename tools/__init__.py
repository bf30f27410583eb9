"""The tool functions of the example specs: a package of the user's project, never installed."""
