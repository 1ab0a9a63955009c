"""What rows hold: read from the table, or known from the objects of a session."""
