"""Telling the receivers of webhooks of the ends of tasks."""
