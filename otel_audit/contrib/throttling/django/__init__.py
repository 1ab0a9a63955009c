"""Throttling of Django's views, DRF's, and of logins by Django's authentication."""
