"""Exported spans without secrets: the copy that an exporter is given, and how it comes to every exporter."""
