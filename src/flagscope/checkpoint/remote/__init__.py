"""Files behind URLs and on the hub, read by ranges of bytes."""
