"""Which models are audited, by which rule, and what is written wrongly: said at the start, and when asked."""
