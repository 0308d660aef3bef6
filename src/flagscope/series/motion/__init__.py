"""How the maps of a network move over a series of checkpoints."""
