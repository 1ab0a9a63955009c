"""Instructions instead of times, which repeat within a per cent: `make bench-instructions`."""
