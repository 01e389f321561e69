"""Public data, fetched and checked."""
