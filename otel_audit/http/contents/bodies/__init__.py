"""Bodies of requests and responses: read as far as their limit asks for, redacted, and made short."""
