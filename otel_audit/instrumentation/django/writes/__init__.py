"""Writes of the ORM: one file for each kind of statement."""
