"""Two checkpoints joined with the mathematics: content, adapters, change."""
