"""One folder an experiment, one experiment a claim; `registry` finds them by their names."""
