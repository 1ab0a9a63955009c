"""What every instrumentor of HTTP shares: it knows no framework."""
