"""What instances are loaded with, kept for the old values of a later save."""
