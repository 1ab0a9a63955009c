"""Rows that the database deletes or changes by itself with those a statement names."""
