"""What a scan will do: its tasks, their cost and order, and what they cover of a checkpoint."""
