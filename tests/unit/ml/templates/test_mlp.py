"""The templates mlp and lregression: what they compute, and how they begin."""

import math

import numpy as np
import pytest
from scipy.special import expit

torch = pytest.importorskip("torch")

from ml import templates  # noqa: E402
from ml.errors import ModelUnusable  # noqa: E402
from ml.options.torch import ACTIVATIONS, TEMPLATES, TorchOptions  # noqa: E402

#: What each activation is, in the words of its paper; PReLU begins with a slope of 0.25.
FORMULAS = {
    "relu": lambda x: np.maximum(x, 0),
    "prelu": lambda x: np.where(x > 0, x, 0.25 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "sigmoid": expit,
    "tanh": np.tanh,
    "swish": lambda x: x * expit(x),
}


def made(**changes):
    given = {"inputs": 4, "outputs": 3, "hidden": [6, 5], "activation": "relu", "dropout": [0.0, 0.0], "bn": False}
    network = templates.find("mlp").build({**given, **changes})
    torch.manual_seed(1)
    network.start()
    return network


def numbers(network):
    return {name: tensor.numpy().astype(np.float64) for name, tensor in network.state_dict().items()}


def test_the_names_in_the_options_are_those_of_the_templates():
    assert sorted(templates.listed()) == sorted(TEMPLATES)
    with pytest.raises(ModelUnusable, match="'resnet', which is unknown here"):
        templates.find("resnet")


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_is_affine_layers_with_activations_between(activation):
    network = made(activation=activation)
    inputs = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    found = network(torch.from_numpy(inputs)).detach().numpy()
    weights, values = numbers(network), inputs.astype(np.float64)
    for place in range(3):
        values = values @ weights[f"ip{place}.weight"].T + weights[f"ip{place}.bias"]
        if place < 2:
            values = FORMULAS[activation](values)
    assert found == pytest.approx(values, abs=1e-5)


def test_lregression_is_one_affine_layer():
    options = TorchOptions(template="lregression", nclasses=3, layers=(9, 9), bn=True)
    structure = templates.find("lregression").structure(options, 4, 3)
    network = templates.find("lregression").build(structure)
    network.start()
    assert list(network.state_dict()) == ["ip0.weight", "ip0.bias"]
    inputs = torch.randn(5, 4)
    weights = numbers(network)
    assert network(inputs).detach().numpy() == pytest.approx(
        inputs.numpy() @ weights["ip0.weight"].T + weights["ip0.bias"], abs=1e-6
    )


def test_batch_normalisation_stands_between_a_layer_and_its_activation():
    network = made(hidden=[6], dropout=[0.0], bn=True)
    inputs = torch.randn(50, 4)
    found = network.train()(inputs).detach().numpy()
    weights = numbers(network)
    values = inputs.numpy() @ weights["ip0.weight"].T + weights["ip0.bias"]
    values = np.maximum((values - values.mean(axis=0)) / np.sqrt(values.var(axis=0) + 1e-5), 0)
    assert found == pytest.approx(values @ weights["ip1.weight"].T + weights["ip1.bias"], abs=1e-4)


def test_dropout_leaves_units_out_in_training_only():
    network = made(hidden=[1000], dropout=[0.25])
    taken = []
    network.get_submodule("drop0").register_forward_hook(lambda _, inputs, output: taken.append((inputs[0], output)))
    network.train()(torch.ones(1, 4))
    before, after = taken.pop()
    alive = before[0] > 0
    assert 0.15 < float((after[0][alive] == 0).float().mean()) < 0.35
    kept = alive & (after[0] != 0)
    assert torch.allclose(after[0][kept], before[0][kept] / 0.75)
    first, second = (network.eval()(torch.ones(1, 4)) for _ in range(2))
    assert torch.equal(first, second)


def test_layers_are_named_as_in_caffe_and_the_last_one_twice_more():
    network = made()
    assert list(network.layers) == ["ip0", "ip1", "ip2", "last", "final"]
    assert network.layers["ip0"] is network.get_submodule("act0")
    assert network.layers["last"] is network.layers["final"] is network.get_submodule(network.head)
    assert network.widest == 6


@pytest.mark.parametrize(
    ("activation", "bound"),
    [("relu", math.sqrt(6 / 400)), ("swish", math.sqrt(6 / 400)), ("tanh", math.sqrt(6 / 700))],
)
def test_first_weights_are_drawn_evenly_within_the_bounds_of_he_or_glorot_and_biases_are_zero(activation, bound):
    network = made(inputs=400, hidden=[300], activation=activation, dropout=[0.0])
    weights = numbers(network)
    hidden, head = weights["ip0.weight"], weights["ip1.weight"]
    assert np.abs(hidden).max() == pytest.approx(bound, rel=1e-2)
    assert hidden.std() == pytest.approx(bound / math.sqrt(3), rel=2e-2)
    assert np.abs(head).max() == pytest.approx(math.sqrt(6 / 303), rel=3e-2)
    assert not weights["ip0.bias"].any()
    assert not weights["ip1.bias"].any()


def test_the_same_seed_draws_the_same_weights_wherever_the_network_was_built():
    with torch.device("meta"):
        other = templates.find("mlp").build(
            {"inputs": 4, "outputs": 3, "hidden": [6, 5], "activation": "prelu", "dropout": [0.0, 0.0], "bn": True}
        )
    other.to_empty(device="cpu")
    torch.manual_seed(1)
    other.start()
    one = made(activation="prelu", bn=True)
    assert all(torch.equal(tensor, one.state_dict()[name]) for name, tensor in other.state_dict().items())
    assert torch.equal(one.state_dict()["bn0.running_var"], torch.ones(6))


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": 0},
        {"hidden": [2**30, 5]},
        {"hidden": [True, 5]},
        {"outputs": 2.0},
        {"activation": "gelu"},
        {"dropout": [0.0]},
        {"unknown": 1},
    ],
)
def test_a_structure_that_is_none_builds_nothing(changes):
    with pytest.raises((TypeError, ValueError)):
        made(**changes)
