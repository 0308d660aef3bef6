"""Two checkpoints side by side: what they share, what moved, what an adapter did."""
