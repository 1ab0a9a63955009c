"""The smallest site that writes: each request creates a row, and what else it is asked to."""
