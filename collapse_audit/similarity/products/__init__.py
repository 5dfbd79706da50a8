"""Products of unit rows, made fast in several kinds of arithmetic, and how wrong each may be."""
