"""One file an experiment, one experiment a claim; `registry` finds them by their file names."""
