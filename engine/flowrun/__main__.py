"""``python -m flowrun``."""

from flowrun.cli import main

main()
