"""What moved between two sets of weights of one architecture."""
