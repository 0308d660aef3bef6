"""Results of a comparison of two checkpoints."""
