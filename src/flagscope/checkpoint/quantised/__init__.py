"""Formats of quantisers, dequantised by slices as they are read."""
