"""Each module asks one question of a series."""
