"""The life of a task. Every change is one conditional update, so that of two processes only one can win.

An attempt's writes say `WHERE id AND attempt AND state = 'running'`: whoever finds no row was taken over.
"""

from __future__ import annotations

from storage.records.tasks.accepting import Accepting
from storage.records.tasks.cancelling import Cancelling
from storage.records.tasks.claiming import Claiming
from storage.records.tasks.ending import Ended, Ending
from storage.records.tasks.reading import Reading
from storage.records.tasks.starting import OpenTasks, Starting, Waiting
from storage.records.tasks.sweeping import Sweeping

__all__ = ["Ended", "OpenTasks", "Tasks", "Waiting"]


class Tasks(Accepting, Cancelling, Claiming, Ending, Reading, Starting, Sweeping):
    """Tasks and their attempts."""
