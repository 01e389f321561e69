"""Raw examples to what a student reads, one room for each kind of input."""
