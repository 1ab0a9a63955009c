"""Requests: the scope of each, those that were denied, and the end of the server that answers them."""
