"""The comparison: methods, tasks, stress and seeds, cell by cell, and tables of what came of it."""
