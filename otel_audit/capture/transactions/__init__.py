"""One connection of a database, and what was captured in its transaction until the outcome is known."""
