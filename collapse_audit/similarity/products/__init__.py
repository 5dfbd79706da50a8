"""Products of unit rows, made fast in several arithmetics, and how wrong each may be."""
