"""A Django project to measure with: one table, one view that updates a row of it."""
