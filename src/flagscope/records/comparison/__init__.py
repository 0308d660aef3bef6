"""Records of a comparison of two checkpoints."""
