"""The training loop. It reports through hooks and knows nothing of who listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ml import measures as measuring
from ml.backends.base import Trainer
from ml.tables import Table, Target
from ml.training.checkpoints import Checkpoints, Progress
from ml.training.hooks import Hooks

Outcome = Literal["finished", "cancel", "pause"]


@dataclass(frozen=True)
class Plan:
    """How long to train and what to measure.

    iterations : total number, counted from the very first attempt.
    test_interval : iterations between two tests; the last iteration is always tested.
    measures : names as in `parameters.output.measure`.
    labels : class names in measures, when there are any.
    test_initialization : whether to test before the first iteration.
    first_iteration : number of the first iteration, 0 or 1.
    """

    iterations: int
    test_interval: int
    measures: Sequence[str]
    target: Target
    labels: Sequence[str] | None = None
    test_initialization: bool = False
    first_iteration: int = 0

    def number(self, done: int) -> int:
        """Number of the iteration after which so many are done."""
        return done - 1 + self.first_iteration


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

    A cancel is obeyed before the next iteration, a pause before the next one at which the trainer can be saved. A
    trainer that has done all of them already is tested, no more.
    """
    began = clock() - progress.elapsed_s
    progress.done = trainer.done
    is_fresh = trainer.done == 0 and plan.test_initialization
    if tests and (is_fresh or trainer.done >= plan.iterations):
        _test(trainer, tests, plan, progress, hooks)
    if trainer.done >= plan.iterations:
        hooks.on_step(trainer.done)
    while trainer.done < plan.iterations:
        stop = hooks.should_stop()
        if stop == "cancel" or (stop == "pause" and trainer.can_save):
            progress.elapsed_s = clock() - began
            return stop
        trainer.step()
        progress.done = trainer.done
        running = trainer.running()
        if running:
            progress.steps.add({**running, "elapsed_time_ms": (clock() - began) * 1e3})
        iteration = plan.number(trainer.done)
        is_last = trainer.done >= plan.iterations
        if tests and (is_last or (iteration > 0 and iteration % plan.test_interval == 0)):
            _test(trainer, tests, plan, progress, hooks)
        hooks.on_step(trainer.done)
        if not is_last and trainer.can_save and checkpoints.is_due():
            progress.elapsed_s = clock() - began
            folder, seconds = checkpoints.save(trainer, progress)
            hooks.on_checkpoint(iteration, folder, seconds)
    progress.elapsed_s = clock() - began
    return "finished"


def _test(trainer: Trainer, tests: Sequence[Table], plan: Plan, progress: Progress, hooks: Hooks) -> None:
    """Measure every test set, and have the model kept where it is the best so far."""
    done = trainer.done
    iteration = max(0, plan.number(done))
    progress.each = [measured(trainer, position, test, plan) for position, test in enumerate(tests)]
    progress.measures = measuring.several(progress.each)
    progress.history.add(iteration, measuring.flat(progress.measures))
    progress.best = measuring.improved(progress.best, progress.measures, done)
    if len(tests) > 1:
        before = progress.bests or [None] * len(tests)
        progress.bests = [
            measuring.improved(best, measures, done) for best, measures in zip(before, progress.each, strict=True)
        ]
    if done > 0:
        trainer.keep(progress.kept)
    hooks.on_measures(iteration, progress.measures)


def measured(trainer: Trainer, position: int, test: Table, plan: Plan) -> dict[str, Any]:
    """The measures of a test set."""
    outputs, own = trainer.test(position)
    if outputs is None:
        return own
    return {**compute(plan.target, plan.measures, outputs, test, plan.labels), **own}


def compute(
    target: Target, names: Sequence[str], outputs: np.ndarray, table: Table, labels: Sequence[str] | None = None
) -> dict[str, Any]:
    """The measures called `names` of outputs against the truth of a table; rows that do not count are left out."""
    if target.kind == "autoencoder":
        return measuring.compute(target, names, outputs, (chunk.features for chunk in table.chunks()))
    truth = table.labels
    assert truth is not None
    if target.ignored is not None and target.kind == "classification":
        counts = truth != target.ignored
        outputs, truth = outputs[counts], truth[counts]
    return measuring.compute(target, names, outputs, np.asarray(truth), labels=labels)
