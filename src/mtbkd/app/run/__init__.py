"""A run directory from end to end: its stages, evaluation, diagnosis and the report's data."""
