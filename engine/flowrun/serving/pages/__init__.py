"""Pages for browsers: the list of runs, a run, and the questions that it asks people."""
