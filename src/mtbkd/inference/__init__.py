"""Engines, one in each file, and what drives their chains."""
