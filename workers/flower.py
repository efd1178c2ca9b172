"""Flower with a login for all that it shows: `python -m workers.flower OPTION…`, as `celery flower` takes them."""

from __future__ import annotations

import sys

from celery.__main__ import main
from flower.views.monitor import Metrics
from tornado.web import authenticated

# Names of workers and counts of messages, which Flower itself tells everybody. What stays open, /healthcheck, says no
# more than that it runs.
Metrics.get = authenticated(Metrics.get)

if __name__ == "__main__":
    sys.argv[1:] = ["-A", "workers.app", "flower", *sys.argv[1:]]
    sys.exit(main())
