"""Experiments, one folder and one claim each; `registry` finds them by name."""
