"""Reads of the ORM: what a query shows of sensitive models."""
