"""A loaded network that answers."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.special import expit, softmax

torch = pytest.importorskip("torch")

from ml import templates  # noqa: E402
from ml.errors import BadInput, BadParameter  # noqa: E402
from ml.neural.engine import NeuralEngine  # noqa: E402
from ml.options.net import NetOptions  # noqa: E402
from ml.options.target import Target  # noqa: E402
from ml.options.torch import TorchOptions  # noqa: E402

INPUTS = np.random.default_rng(1).normal(size=(30, 4)).astype(np.float32)
NAMES = ["height", "width", "depth", "weight"]
THREE = Target("classification", classes=3)


def network():
    torch.manual_seed(6)
    made = templates.find("mlp").build(
        {"inputs": 4, "outputs": 3, "hidden": [6, 5], "activation": "tanh", "dropout": [0.5, 0.0], "bn": True}
    )
    made.start()
    made.train()(torch.randn(50, 4))  # so that its averages are not those it begins with
    return made


def engine(target=THREE, **options):
    return NeuralEngine(network(), target, inputs=4, names=NAMES, device=torch.device("cpu"), **options)


def layer(count):
    """What numpy makes of the inputs after so many layers; the third has no activation."""
    made = network().state_dict()
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in made.items()}
    values = INPUTS.astype(np.float64)
    for place in range(count):
        values = values @ weights[f"ip{place}.weight"].T + weights[f"ip{place}.bias"]
        if place < 2:
            norm = (values - weights[f"bn{place}.running_mean"]) / np.sqrt(weights[f"bn{place}.running_var"] + 1e-5)
            values = np.tanh(norm * weights[f"bn{place}.weight"] + weights[f"bn{place}.bias"])
    return values


def test_classes_are_what_numpy_finds():
    assert engine().predict(INPUTS) == pytest.approx(softmax(layer(3), axis=1), abs=1e-6)


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        (Target("multi_label", classes=3), lambda raw: expit(raw)),
        (Target("soft_labels", classes=3), lambda raw: expit(raw)),
        (Target("regression", targets=3), lambda raw: raw),
    ],
)
def test_other_targets_have_the_outputs_they_mean(target, wanted):
    assert engine(target).predict(INPUTS) == pytest.approx(wanted(layer(3)), abs=1e-5)


def test_outputs_do_not_depend_on_how_rows_are_put_together():
    made = engine()
    wanted = made.predict(INPUTS)
    for size in (1, 7, 30, 100):
        found = made.predict(INPUTS, TorchOptions(net=NetOptions(test_batch_size=size)))
        assert found == pytest.approx(wanted, abs=1e-6)
    assert np.concatenate([made.predict(INPUTS[row : row + 1]) for row in range(30)]) == pytest.approx(wanted, abs=1e-6)


def test_sparse_rows_are_as_good_as_dense_ones():
    some = np.where(INPUTS > 0, INPUTS, 0)
    assert np.array_equal(engine().predict(csr_matrix(some)), engine().predict(some))


def test_no_rows_have_no_outputs():
    assert engine().predict(INPUTS[:0]).shape == (0, 3)


def test_the_temperature_of_a_request_wins_over_that_of_the_training():
    made = engine(temperature=2.0)
    assert made.predict(INPUTS) == pytest.approx(softmax(layer(3) / 2, axis=1), abs=1e-6)
    found = made.predict(INPUTS, TorchOptions(scaling_temperature=0.5))
    assert found == pytest.approx(softmax(layer(3) / 0.5, axis=1), abs=1e-6)
    assert made.predict(INPUTS, TorchOptions()) == pytest.approx(softmax(layer(3) / 2, axis=1), abs=1e-6)


@pytest.mark.parametrize(("datatype", "error"), [("fp64", 1e-7), ("fp32", 1e-6), ("fp16", 5e-3)])
def test_the_datatype_of_a_request_wins_and_says_how_exact_outputs_are(datatype, error):
    wanted = softmax(layer(3), axis=1)
    found = engine().predict(INPUTS, TorchOptions(datatype=datatype))
    assert found.dtype == np.float32
    assert found == pytest.approx(wanted, abs=error)
    assert np.array_equal(engine(datatype=datatype).predict(INPUTS), found)
    assert np.array_equal(found, engine().predict(INPUTS)) == (datatype == "fp32")


@pytest.mark.parametrize(("name", "count"), [("ip0", 1), ("ip1", 2), ("ip2", 3), ("last", 3), ("final", 3)])
def test_a_layer_gives_its_values(name, count):
    made = engine()
    assert made.extract(INPUTS, name) == pytest.approx(layer(count), abs=1e-5)
    small = TorchOptions(net=NetOptions(test_batch_size=4))
    assert made.extract(INPUTS, name, small) == pytest.approx(layer(count), abs=1e-5)


def test_a_layer_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(BadParameter) as caught:
        engine().extract(INPUTS, "conv1")
    assert "unknown extract layer conv1" in str(caught.value)
    assert "ip0, ip1, ip2, last, final" in str(caught.value)
    assert caught.value.section == "mllib"


def test_rows_of_another_width_are_refused():
    with pytest.raises(BadInput, match="the data has 3 features, the model was trained with 4"):
        engine().predict(INPUTS[:, :3])


@pytest.mark.parametrize(("value", "text"), [(np.nan, "has no value"), (-np.inf, "has the value -inf")])
def test_missing_and_infinite_values_are_refused_with_their_place(value, text):
    broken = INPUTS.copy()
    broken[17, 2] = value
    for size in (None, 5):
        with pytest.raises(BadInput, match=f"column depth of the data, row 18, {text}"):
            engine().predict(broken, TorchOptions(net=NetOptions(test_batch_size=size)))


def test_bytes_grow_with_the_weights_and_with_every_type_asked_for():
    made = engine()
    before = made.bytes
    weights = sum(tensor.numel() for tensor in network().parameters())
    assert before > 4 * weights
    made.predict(INPUTS, TorchOptions(datatype="fp64"))
    assert made.bytes >= before + 8 * weights


def test_probabilities_of_half_precision_add_up_to_one():
    found = engine().predict(INPUTS, TorchOptions(datatype="fp16"))
    assert found.sum(axis=1) == pytest.approx(np.ones(30), abs=1e-6)


@pytest.mark.parametrize(
    ("datatype", "value", "advice"),
    [("fp16", 1e6, "or ask for parameters.mllib.datatype fp32"), ("fp32", 3e38, "like those of the training$")],
)
def test_rows_whose_values_leave_the_range_of_their_type_are_refused(datatype, value, advice):
    far = INPUTS.copy()
    far[12] = value
    made = NeuralEngine(
        templates.find("lregression").build(
            {"inputs": 4, "outputs": 3, "hidden": [], "activation": "relu", "dropout": [], "bn": False}
        ),
        Target("regression", targets=3),
        inputs=4,
        names=NAMES,
        device=torch.device("cpu"),
    )
    torch.nn.init.constant_(made._network.get_submodule("ip0").weight, 2.0)
    with pytest.raises(BadInput, match=f"row 13 of the data has no prediction.*{advice}"):
        made.predict(far, TorchOptions(datatype=datatype))
