"""The embedded engine: loading it, its data directory, and blocks of its Native format."""
