"""The training loop. It reports through hooks and knows nothing of who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ml import measures as measuring
from ml.backends.base import Trainer
from ml.connectors.csv import Table
from ml.training.checkpoints import Checkpoints, Progress
from ml.training.hooks import Hooks

Outcome = Literal["finished", "cancel", "pause"]


@dataclass(frozen=True)
class Plan:
    """How long to train and what to measure.

    iterations : total number, counted from the very first attempt.
    test_interval : iterations between two tests; the last iteration is always tested.
    measures : names as in `parameters.output.measure`.
    """

    iterations: int
    test_interval: int
    measures: Sequence[str]
    is_regression: bool


def train(
    trainer: Trainer,
    tests: Sequence[Table],
    plan: Plan,
    progress: Progress,
    checkpoints: Checkpoints,
    hooks: Hooks,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Train from `trainer.done` to `plan.iterations`, or until a hook wants to stop; `progress` is kept up to date.

    A cancel is obeyed before the next iteration, a pause before the next one at which the trainer can be saved.
    """
    began = clock() - progress.elapsed_s
    for iteration in range(trainer.done, plan.iterations):
        stop = hooks.should_stop()
        if stop == "cancel" or (stop == "pause" and trainer.can_save):
            progress.elapsed_s = clock() - began
            return stop
        trainer.step()
        progress.done = trainer.done
        is_last = trainer.done == plan.iterations
        if tests and (is_last or (iteration > 0 and iteration % plan.test_interval == 0)):
            progress.measures = measured(trainer, tests, plan)
            progress.history.add(iteration, measuring.flat(progress.measures))
            progress.best = measuring.improved(progress.best, progress.measures, iteration)
            hooks.on_measures(iteration, progress.measures)
        hooks.on_step(trainer.done)
        if not is_last and trainer.can_save and checkpoints.is_due():
            progress.elapsed_s = clock() - began
            folder, seconds = checkpoints.save(trainer, progress)
            hooks.on_checkpoint(iteration, folder, seconds)
    progress.elapsed_s = clock() - began
    return "finished"


def measured(trainer: Trainer, tests: Sequence[Table], plan: Plan) -> dict[str, Any]:
    """The measures of the first test set."""
    outputs, own = trainer.test(0)
    return {**compute(plan, outputs, tests[0]), **own}


def compute(plan: Plan, outputs: np.ndarray, test: Table) -> dict[str, Any]:
    """The measures that the plan wants, of outputs against the labels of a test set."""
    assert test.labels is not None
    if plan.is_regression:
        return dict(measuring.regression(plan.measures, outputs, test.labels))
    return measuring.classification(plan.measures, outputs, test.labels)
