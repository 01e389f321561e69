"""The application: what the command `mtbkd` is for. Nothing in the library imports it."""
