"""What two checkpoints have in common, and what lies between them."""
