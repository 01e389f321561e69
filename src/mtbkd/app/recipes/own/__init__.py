"""The recipe for one's own examples and teachers."""
