"""Choice of the group of tensors in a saved object that is the model."""
