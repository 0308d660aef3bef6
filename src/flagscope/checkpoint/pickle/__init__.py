"""Pickles read as descriptions: nothing in them is called or imported."""
