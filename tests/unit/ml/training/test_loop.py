"""The loop: what it calls, when, and how it leaves; with a trainer made for the test."""

import json

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ml.errors import ModelUnusable
from ml.tables import Chunk, DenseTable, SparseTable, Target
from ml.training.checkpoints import COST_MAX, Checkpoints, Progress, read_progress
from ml.training.loop import Plan, compute, train


class Clock:
    """Time that passes only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class CountingTrainer:
    """Guesses class 1 for as many of four rows as iterations are done."""

    def __init__(self, clock, done=0, step_s=1.0, save_s=0.0):
        self.clock, self.done, self.step_s, self.save_s = clock, done, step_s, save_s
        self.block = 1
        self.kept = []

    @property
    def can_save(self):
        return self.done % self.block == 0

    def step(self):
        self.done += 1
        self.clock.now += self.step_s

    def test(self, position):
        guessed = (np.arange(4) < self.done).astype(int)
        return np.eye(2)[guessed], {"own": float(self.done)}

    def running(self):
        return {"train_loss": 1.0 / self.done}

    def keep(self, wanted):
        self.kept.append(sorted(wanted))

    def save_state(self, folder):
        self.clock.now += self.save_s
        (folder / "state.json").write_text(json.dumps(self.done))

    def save_model(self, folder, rounds):
        raise AssertionError("the loop saves no model")


class Recorder:
    """Hooks that remember what they were told."""

    def __init__(self, stop_at=None, reason="cancel"):
        self.stop_at, self.reason = stop_at, reason
        self.steps, self.measures, self.checkpoints = [], [], []

    def should_stop(self):
        return self.reason if self.stop_at is not None and len(self.steps) >= self.stop_at else None

    def on_step(self, done):
        self.steps.append(done)

    def on_measures(self, iteration, measures):
        self.measures.append((iteration, measures["acc"]))

    def on_checkpoint(self, iteration, folder, seconds):
        self.checkpoints.append((iteration, folder.name, seconds))


TWO = Target("classification", classes=2)
ROWS = DenseTable(np.zeros((4, 1), np.float32), np.ones(4, np.int32), None, "split")


@pytest.fixture
def clock():
    return Clock()


def go(
    tmp_path,
    clock,
    hooks,
    iterations=5,
    interval=1,
    tests=(ROWS,),
    trainer=None,
    checkpoint_s=1e9,
    progress=None,
    plan=None,
):
    trainer = trainer or CountingTrainer(clock)
    progress = progress or Progress()
    checkpoints = Checkpoints(tmp_path / "checkpoints", checkpoint_s, clock)
    plan = plan or Plan(iterations, interval, ("acc",), TWO)
    outcome = train(trainer, tests, plan, progress, checkpoints, hooks, clock)
    return outcome, trainer, progress


@pytest.mark.parametrize(
    ("iterations", "interval", "tested"),
    [(5, 1, [1, 2, 3, 4]), (5, 2, [2, 4]), (6, 2, [2, 4, 5]), (5, 10, [4]), (1, 1, [0]), (2, 1, [1])],
)
def test_tests_come_at_the_interval_from_iteration_1_on_and_after_the_last(
    tmp_path, clock, iterations, interval, tested
):
    hooks = Recorder()
    outcome, _, progress = go(tmp_path, clock, hooks, iterations, interval)
    assert outcome == "finished"
    assert [iteration for iteration, _ in hooks.measures] == tested
    assert progress.history.as_json()["iteration_hist"] == tested


def test_every_step_is_told_and_measures_come_from_the_trainer(tmp_path, clock):
    hooks = Recorder()
    _, _, progress = go(tmp_path, clock, hooks, 4)
    assert hooks.steps == [1, 2, 3, 4]
    assert hooks.measures == [(1, 0.5), (2, 0.75), (3, 1.0)]
    assert progress.history.as_json()["own_hist"] == [2, 3, 4]
    assert progress.best.iteration == 4  # iterations done
    assert progress.elapsed_s == 4.0


def test_without_a_test_set_nothing_is_measured(tmp_path, clock):
    hooks = Recorder()
    _, _, progress = go(tmp_path, clock, hooks, tests=())
    assert hooks.measures == []
    assert progress.best is None


@pytest.mark.parametrize("reason", ["cancel", "pause"])
def test_a_stop_is_obeyed_before_the_next_iteration(tmp_path, clock, reason):
    outcome, trainer, progress = go(tmp_path, clock, Recorder(2, reason))
    assert (outcome, trainer.done, progress.done) == (reason, 2, 2)


def test_a_pause_waits_until_the_trainer_can_be_saved_and_a_cancel_does_not(tmp_path, clock):
    for reason, done in (("pause", 6), ("cancel", 4)):
        trainer = CountingTrainer(clock)
        trainer.block = 3
        outcome, _, _ = go(tmp_path, clock, Recorder(4, reason), 20, trainer=trainer)
        assert (outcome, trainer.done) == (reason, done)


def test_checkpoints_are_taken_only_where_the_trainer_can_be_saved(tmp_path, clock):
    hooks = Recorder()
    trainer = CountingTrainer(clock)
    trainer.block = 4
    go(tmp_path, clock, hooks, 10, trainer=trainer, checkpoint_s=2.5)
    assert [name for _, name, _ in hooks.checkpoints] == ["000004", "000008"]


def test_a_resumed_training_does_only_what_is_left(tmp_path, clock):
    hooks = Recorder()
    _, _, progress = go(
        tmp_path,
        clock,
        hooks,
        5,
        trainer=CountingTrainer(clock, done=3),
        progress=Progress(done=3, elapsed_s=30.0),
    )
    assert hooks.steps == [4, 5]
    assert progress.elapsed_s == 32.0


def test_a_trainer_that_has_done_all_iterations_is_tested_and_not_trained_further(tmp_path, clock):
    hooks = Recorder()
    outcome, trainer, progress = go(tmp_path, clock, hooks, 5, trainer=CountingTrainer(clock, done=5))
    assert outcome == "finished"
    assert trainer.done == 5
    assert hooks.steps == [5]
    assert hooks.measures == [(4, 1.0)]
    assert progress.measures["acc"] == 1.0


def test_a_test_before_the_first_iteration_keeps_no_model(tmp_path, clock):
    hooks = Recorder()
    plan = Plan(2, 1, ("acc",), TWO, test_initialization=True, first_iteration=1)
    _, trainer, progress = go(tmp_path, clock, hooks, plan=plan)
    assert hooks.measures == [(0, 0.0), (1, 0.25), (2, 0.5)]
    assert progress.history.as_json()["iteration_hist"] == [0, 1, 2]
    assert trainer.kept == [[1], [2]]


def test_each_test_set_has_its_own_best_and_the_mean_has_one_too(tmp_path, clock):
    class Changing(CountingTrainer):
        """Is right about the first set after one iteration, and about the second after three."""

        def test(self, position):
            right = self.done == (1, 3)[position]
            return np.eye(2)[np.full(4, int(right))], {}

    _, trainer, progress = go(
        tmp_path,
        clock,
        Recorder(),
        tests=(ROWS, ROWS),
        trainer=Changing(clock),
        plan=Plan(4, 1, ("acc",), TWO, first_iteration=1),
    )
    assert [best.iteration for best in progress.bests] == [1, 3]
    assert progress.best.iteration == 1  # the mean is as good at 3, and no better
    assert trainer.kept[-1] == [1, 3]
    assert [measures["acc"] for measures in progress.each] == [0.0, 0.0]


def test_what_every_iteration_tells_becomes_a_series_of_its_own(tmp_path, clock):
    _, _, progress = go(tmp_path, clock, Recorder(), 3)
    series = progress.steps.sampled(10)["series"]
    assert series["train_loss_hist"] == [1.0, 1 / 2, 1 / 3]
    assert series["elapsed_time_ms_hist"] == [1000.0, 2000.0, 3000.0]


def test_checkpoints_come_at_their_interval_but_not_after_the_last_iteration(tmp_path, clock):
    hooks = Recorder()
    go(tmp_path, clock, hooks, 10, checkpoint_s=3.0)
    assert [(iteration, name) for iteration, name, _ in hooks.checkpoints] == [
        (2, "000003"),
        (5, "000006"),
        (8, "000009"),
    ]


def test_checkpoints_never_cost_more_than_their_share(tmp_path, clock):
    hooks = Recorder()
    trainer = CountingTrainer(clock, save_s=2.0)
    go(tmp_path, clock, hooks, 500, trainer=trainer, tests=(), checkpoint_s=1.0)
    total = sum(seconds for _, _, seconds in hooks.checkpoints)
    assert len(hooks.checkpoints) > 2
    assert total <= COST_MAX * 500 + 2.0  # the first one is taken before its price is known


def test_a_checkpoint_remembers_everything_and_leaves_nothing_partial(tmp_path, clock):
    hooks = Recorder()
    _, _, progress = go(tmp_path, clock, hooks, 5, checkpoint_s=4.0, progress=Progress(seed=7, threads=2, device="cpu"))
    (folder,) = (tmp_path / "checkpoints").iterdir()
    assert folder.name == "000004"
    kept = read_progress(folder)
    assert (kept.done, kept.seed, kept.threads, kept.device, kept.elapsed_s) == (4, 7, 2, "cpu", 4.0)
    assert kept.history.as_json()["iteration_hist"] == [1, 2, 3]
    assert kept.best == progress.best
    assert kept.measures["acc"] == 1.0


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(ModelUnusable, match="is no checkpoint"):
        read_progress(tmp_path)
    (tmp_path / "training.json").write_text('{"done": 1}')
    with pytest.raises(ModelUnusable, match="is no checkpoint"):
        read_progress(tmp_path)


class InPieces(DenseTable):
    """A table that never has more than two rows in memory."""

    def chunks(self, generator=None, start=0):
        for first in range(0, len(self), 2):
            yield Chunk(self.features[first : first + 2], None)


@pytest.mark.parametrize(
    "table",
    [
        lambda features: DenseTable(features, None, None, "test"),
        lambda features: SparseTable(csr_matrix(features), None, None, "test"),
        lambda features: InPieces(features, None, None, "test"),
    ],
)
def test_an_autoencoder_is_measured_on_every_row_however_the_features_are_held(table):
    features = np.array([[0, 3], [0, 0], [1, 0]], dtype=np.float32)
    made = compute(Target("autoencoder"), ("eucll",), np.zeros((3, 2), np.float32), table(features))
    assert made == pytest.approx({"eucll": (3 + 0 + 1) / 2 / 3})  # lengths, divided by two dimensions


def test_rows_with_the_ignored_label_are_not_measured():
    labels = np.array([0, 9, 1], dtype=np.int32)
    table = DenseTable(np.zeros((3, 1), np.float32), labels, None, "test")
    outputs = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]], dtype=np.float32)
    assert compute(Target("classification", classes=2, ignored=9), ("acc",), outputs, table) == {"acc": 0.5}
