"""Texts: a column of them, as hashed n-grams or through a frozen model."""
