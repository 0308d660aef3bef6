"""Which of the groups of tensors in a saved object is the model."""
