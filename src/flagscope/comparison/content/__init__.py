"""What two checkpoints have in common, tensor by tensor."""
