"""Files of PyTorch: zip archives, the older format, plain pickles."""
