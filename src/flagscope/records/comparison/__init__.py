"""Results of a comparison of two checkpoints: frozen records without tensors."""
