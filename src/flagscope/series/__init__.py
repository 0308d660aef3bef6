"""Series of checkpoints of one training."""
