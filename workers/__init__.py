"""Celery: the life of a task, the supervision of training processes, predictions, the sweep."""
