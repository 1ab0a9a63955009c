"""Spans: no secret leaves with one, whoever exports it."""
