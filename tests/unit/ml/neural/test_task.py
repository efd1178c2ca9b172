"""Losses and outputs of every target, against numbers worked out with numpy and scipy."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax, softmax

torch = pytest.importorskip("torch")

from ml.neural.task import Task, outputs_of, predicted  # noqa: E402
from ml.options.target import Target  # noqa: E402

CPU = torch.device("cpu")
RAW = np.random.default_rng(2).normal(size=(6, 3)).astype(np.float32) * 3
CLASSES = np.array([0, 2, 1, 1, 0, 2])
SHARES = np.random.default_rng(3).uniform(size=(6, 3)).astype(np.float32)
VALUES = np.random.default_rng(4).normal(size=(6, 3)).astype(np.float32)
LIKELIHOODS = -log_softmax(RAW.astype(np.float64), axis=1)[np.arange(6), CLASSES]


def loss(target, truth, weights=(), distance="L2", raw=RAW):
    return float(Task(target, CPU, weights, distance).loss(torch.from_numpy(raw), torch.from_numpy(truth)))


def test_classes_have_the_mean_cross_entropy():
    assert loss(Target("classification", classes=3), CLASSES) == pytest.approx(LIKELIHOODS.mean(), rel=1e-5)


def test_class_weights_weigh_the_rows_and_their_sum():
    weights = np.array([0.5, 2.0, 1.0])
    wanted = np.average(LIKELIHOODS, weights=weights[CLASSES])
    assert loss(Target("classification", classes=3), CLASSES, tuple(weights)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("ignored", [1, -1, 255])
def test_rows_with_the_ignored_label_count_nowhere(ignored):
    truth = np.where(CLASSES == 1, ignored, CLASSES)
    counted = CLASSES != 1
    target = Target("classification", classes=3, ignored=ignored)
    assert loss(target, truth) == pytest.approx(LIKELIHOODS[counted].mean(), rel=1e-5)
    weights = np.array([0.5, 2.0, 1.0])
    wanted = np.average(LIKELIHOODS[counted], weights=weights[CLASSES[counted]])
    assert loss(target, truth, tuple(weights)) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    ("target", "weights"),
    [
        (Target("classification", classes=3, ignored=1), ()),
        (Target("classification", classes=3, ignored=1), (1.0, 1.0, 1.0)),
        (Target("classification", classes=3), (1.0, 0.0, 1.0)),
    ],
)
def test_a_batch_in_which_no_row_counts_has_no_loss_and_no_gradient(target, weights):
    raw = torch.from_numpy(RAW).requires_grad_()
    found = Task(target, CPU, weights).loss(raw, torch.ones(6, dtype=torch.int64))
    found.backward()
    assert float(found.detach()) == 0.0
    assert not raw.grad.any()


@pytest.mark.parametrize("kind", ["multi_label", "soft_labels"])
def test_independent_classes_have_the_mean_binary_cross_entropy(kind):
    truth = (SHARES > 0.5).astype(np.float32) if kind == "multi_label" else SHARES
    share = expit(RAW.astype(np.float64))
    each = -(truth * np.log(share) + (1 - truth) * np.log(1 - share))
    assert loss(Target(kind, classes=3), truth) == pytest.approx(each.mean(), rel=1e-5)
    weights = np.array([0.5, 2.0, 1.0])
    assert loss(Target(kind, classes=3), truth, tuple(weights)) == pytest.approx((each * weights).mean(), rel=1e-5)


@pytest.mark.parametrize("target", [Target("regression", targets=3), Target("autoencoder")])
@pytest.mark.parametrize(
    ("distance", "wanted"),
    [
        ("L1", np.abs(RAW - VALUES).mean()),
        ("L2", ((RAW - VALUES) ** 2).mean()),
        ("euclidean", ((RAW - VALUES) ** 2).sum(axis=1).mean() / 2),
    ],
)
def test_numbers_have_the_distance_that_was_asked_for(target, distance, wanted):
    assert loss(target, VALUES, distance=distance) == pytest.approx(float(wanted), rel=1e-5)


def test_losses_are_computed_in_single_precision_whatever_the_network_gives():
    target = Target("classification", classes=3)
    raw = torch.from_numpy(RAW).bfloat16()
    assert Task(target, CPU).loss(raw, torch.from_numpy(CLASSES)).dtype == torch.float32


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_classes_have_probabilities_of_scaled_logits(temperature):
    found = predicted(Target("classification", classes=3), torch.from_numpy(RAW), temperature)
    assert found.numpy() == pytest.approx(softmax(RAW / temperature, axis=1), abs=1e-6)


@pytest.mark.parametrize("kind", ["multi_label", "soft_labels"])
def test_independent_classes_have_probabilities_of_their_own(kind):
    assert predicted(Target(kind, classes=3), torch.from_numpy(RAW)).numpy() == pytest.approx(expit(RAW), abs=1e-6)


@pytest.mark.parametrize("target", [Target("regression", targets=3), Target("autoencoder")])
def test_numbers_are_what_the_network_gives(target):
    assert np.array_equal(predicted(target, torch.from_numpy(RAW)).numpy(), RAW)


@pytest.mark.parametrize(
    ("target", "count", "shape"),
    [
        (Target("classification", classes=4), 4, ()),
        (Target("multi_label", classes=4), 4, (4,)),
        (Target("soft_labels", classes=4), 4, (4,)),
        (Target("regression", targets=2), 2, (2,)),
        (Target("autoencoder"), 9, None),
    ],
)
def test_a_target_says_how_wide_the_outputs_and_labels_are(target, count, shape):
    assert outputs_of(target, 9) == count
    form = Task(target, CPU).labels
    assert shape == (None if form is None else form.shape)
