"""What a database and its connection can do, and how databases differ."""
