"""Teachers of every make: adapters, and labelling of many examples."""
