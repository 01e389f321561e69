"""The parts put together: `mtbkd.distill`, and what held-out labels decide."""
