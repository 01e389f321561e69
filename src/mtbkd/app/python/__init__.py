"""The whole library from Python: what the commands do, as methods of a posterior."""
