"""Health of the weights: numbers that are not finite, dead parts, copies, what is missing."""
