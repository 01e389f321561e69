"""Proteins: read from files, as numbers by hand-made features, and through language models."""
