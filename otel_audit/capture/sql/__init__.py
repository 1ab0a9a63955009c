"""Statements an application wrote itself: what their text says, and the records of them."""
