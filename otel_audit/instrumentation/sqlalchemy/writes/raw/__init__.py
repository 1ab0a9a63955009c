"""Statements that only their text describes: of the application, and of cursors of the driver."""
