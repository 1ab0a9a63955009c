"""Calls to other services: what is noted of each while a client makes it, and its record."""
