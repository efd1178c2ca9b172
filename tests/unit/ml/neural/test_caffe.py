"""Files of Caffe: bytes and texts as its own definitions have them."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

torch = pytest.importorskip("torch")

from ml import templates  # noqa: E402
from ml.errors import ModelUnusable  # noqa: E402
from ml.neural import caffe, wire  # noqa: E402
from ml.neural import saved as saving  # noqa: E402
from ml.neural.caffemodel import decoded  # noqa: E402
from ml.options.solver import SolverOptions  # noqa: E402
from ml.options.target import Target  # noqa: E402

TWO = Target("classification", classes=2)


def network(**changes):
    structure = {"inputs": 3, "outputs": 2, "hidden": [4, 5], "activation": "relu", "dropout": [0.0, 0.5], "bn": False}
    structure |= changes
    torch.manual_seed(1)
    made = templates.find("mlp").build(structure)
    made.start()
    for tensor in made.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.1, 1.0)
    return made.eval(), saving.of_network(made, "mlp", structure, TWO, 3)


# ---- an encoder of the test's own: fields of a message as the description of the format has them


def number(value):
    made = b""
    while value > 127:
        made, value = made + bytes([value % 128 + 128]), value // 128
    return made + bytes([value])


def field(place, content):
    """A field with bytes, a text or a number that is not negative."""
    if isinstance(content, int):
        return number(place * 8) + number(content)
    content = content.encode() if isinstance(content, str) else content
    return number(place * 8 + 2) + number(len(content)) + content


def single(place, value):
    return number(place * 8 + 5) + struct.pack("<f", value)


def blob(values, *, legacy=False, packed=True, double=False):
    values = np.asarray(values, float)
    numbers = values.reshape(-1).tolist()
    if double:
        data = field(8, struct.pack(f"<{len(numbers)}d", *numbers))
    elif packed:
        data = field(5, struct.pack(f"<{len(numbers)}f", *numbers))
    else:
        data = b"".join(single(5, each) for each in numbers)
    if legacy:
        sizes = [1] * (4 - values.ndim) + list(values.shape)
        return b"".join(field(place, size) for place, size in enumerate(sizes, start=1)) + data
    return field(7, field(1, b"".join(map(number, values.shape)))) + data


def layer(name, kind, *blobs, own=b""):
    return field(100, field(1, name) + field(2, kind) + b"".join(field(7, each) for each in blobs) + own)


WEIGHTS = [np.array([[1.0, -2, 0.5], [0, 1, 1]]), np.array([[1.0, 1], [-1, 2]])]
BIASES = [np.array([0.5, -1.0]), np.array([0.0, 3.0])]
ROWS = np.array([[1.0, 2, 3], [-1, 0.5, 0]])


def affine(place, *, type="InnerProduct", own=b"", **form):
    return layer(f"inner{place}", type, blob(WEIGHTS[place], **form), blob(BIASES[place], **form), own=own)


def read(folder, *parts):
    path = folder / "foreign.caffemodel"
    path.write_bytes(field(1, "somebody's net") + b"".join(parts))
    return caffe.read_caffemodel(path)


def computed(saved, rows=ROWS):
    return saving.built(saved).eval()(torch.tensor(rows, dtype=torch.float32)).detach().numpy()


def test_a_caffemodel_has_the_bytes_that_caffe_proto_asks_for(tmp_path):
    structure = {"inputs": 3, "outputs": 2, "hidden": [], "activation": "relu", "dropout": [], "bn": False}
    made = templates.find("lregression").build(structure)
    made.load_state_dict({"ip0.weight": torch.tensor(WEIGHTS[0]), "ip0.bias": torch.tensor(BIASES[0])})
    caffe.write_caffemodel(tmp_path / "a", saving.of_network(made, "lregression", structure, TWO, 1))
    wanted = field(1, "lregression") + field(
        100,
        field(1, "ip0")
        + field(2, "InnerProduct")
        + field(3, "data")
        + field(4, "ip0")
        + field(7, field(5, struct.pack("<6f", *WEIGHTS[0].reshape(-1))) + field(7, field(1, b"\x02\x03")))
        + field(7, field(5, struct.pack("<2f", *BIASES[0])) + field(7, field(1, b"\x02")))
        + field(117, field(1, 2)),
    )
    assert (tmp_path / "a").read_bytes() == wanted


@pytest.mark.parametrize("bn", [False, True])
@pytest.mark.parametrize("activation", ["relu", "prelu", "elu", "sigmoid", "tanh", "swish"])
def test_our_networks_come_back_bit_for_bit(tmp_path, activation, bn):
    made, saved = network(activation=activation, bn=bn)
    caffe.write_caffemodel(tmp_path / "a", saved)
    found = caffe.read_caffemodel(tmp_path / "a")
    assert found.structure == {**saved.structure, "dropout": [0.0, 0.0]}
    inputs = torch.randn(7, 3)
    assert torch.equal(saving.built(found).eval()(inputs), made(inputs))


@pytest.mark.parametrize("form", [{}, {"legacy": True}, {"packed": False}, {"double": True}])
def test_files_of_caffe_itself_are_read_in_every_form_of_numbers(tmp_path, form):
    found = read(
        tmp_path,
        layer("data", "MemoryData"),
        affine(0, **form),
        layer("relu0", "ReLU"),
        layer("drop0", "Dropout", own=field(108, single(1, 0.5))),
        affine(1, **form),
        layer("loss", "SoftmaxWithLoss"),
    )
    assert (found.template, found.target) == ("mlp", None)
    wanted = np.maximum(ROWS @ WEIGHTS[0].T + BIASES[0], 0) @ WEIGHTS[1].T + BIASES[1]
    assert computed(found) == pytest.approx(wanted, abs=1e-6)


def test_the_first_format_of_caffe_is_read(tmp_path):
    def old(name, kind, *blobs):
        return field(2, field(4, name) + field(5, kind) + b"".join(field(6, each) for each in blobs))

    legacy = [[blob(WEIGHTS[each], legacy=True), blob(BIASES[each], legacy=True)] for each in range(2)]
    found = read(tmp_path, old("ip", 14, *legacy[0]), old("tanh", 23), old("ip2", 14, *legacy[1]), old("prob", 20))
    wanted = np.tanh(ROWS @ WEIGHTS[0].T + BIASES[0]) @ WEIGHTS[1].T + BIASES[1]
    assert computed(found) == pytest.approx(wanted, abs=1e-6)


def test_layers_without_bias_or_with_turned_weights_are_understood(tmp_path):
    turned = layer("a", "InnerProduct", blob(WEIGHTS[0].T), own=field(117, field(2, 0) + field(6, 1)))
    found = read(tmp_path, turned)
    assert found.template == "lregression"
    assert computed(found) == pytest.approx(ROWS @ WEIGHTS[0].T, abs=1e-6)


def test_batch_normalisation_of_caffe_is_understood(tmp_path):
    mean, variance, factor = np.array([2.0, -4.0]), np.array([8.0, 2.0]), 2.0
    scale, shift = np.array([1.5, 0.5]), np.array([0.1, -0.2])
    norm = layer("bn", "BatchNorm", blob(mean), blob(variance), blob([factor]), own=field(139, single(3, 0.001)))
    found = read(
        tmp_path,
        affine(0),
        norm,
        layer("scale", "Scale", blob(scale), blob(shift), own=field(142, field(5, 1))),
        layer("act", "ELU"),
        affine(1),
    )
    hidden = (ROWS @ WEIGHTS[0].T + BIASES[0] - mean / factor) / np.sqrt(variance / factor + 0.001) * scale + shift
    wanted = np.where(hidden > 0, hidden, np.expm1(hidden)) @ WEIGHTS[1].T + BIASES[1]
    assert computed(found) == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("slopes", [[0.1], [0.1, 0.3]])
def test_slopes_are_one_for_all_or_one_for_each_unit(tmp_path, slopes):
    found = read(tmp_path, affine(0), layer("act", "PReLU", blob(slopes)), affine(1))
    hidden = ROWS @ WEIGHTS[0].T + BIASES[0]
    wanted = np.where(hidden > 0, hidden, np.array(slopes) * hidden) @ WEIGHTS[1].T + BIASES[1]
    assert computed(found) == pytest.approx(wanted, abs=1e-6)


def test_a_sigmoid_at_the_end_is_what_makes_probabilities(tmp_path):
    found = read(tmp_path, affine(0), layer("act", "Sigmoid"), affine(1), layer("prob", "Sigmoid"))
    assert found.structure["activation"] == "sigmoid"


FOREIGN = {
    "nothing": ((), "no affine layers"),
    "a convolution": ((affine(0), layer("conv", "Convolution", blob(np.ones((1, 1, 3, 3))))), "of type Convolution"),
    "no activation": ((affine(0), affine(1)), "not the same after every hidden layer"),
    "an activation at the end": ((affine(0), layer("a", "ReLU"), affine(1), layer("b", "ReLU")), "not the same"),
    "a leaky ReLU": ((affine(0), layer("a", "ReLU", own=field(123, single(1, 0.1))), affine(1)), "of type ReLU"),
    "two activations": ((affine(0), layer("a", "ReLU"), layer("b", "TanH"), affine(1)), "of type TanH"),
    "an activation before all": ((layer("a", "ReLU"), affine(0)), "stands before all others"),
    "weights without a shape": ((layer("a", "InnerProduct", blob([1.0, 2.0])),), "has no weights"),
    "layers that do not fit": ((affine(0), layer("a", "ReLU"), affine(0)), "no affine layers that follow"),
    "fewer numbers than the shape says": (
        (layer("a", "InnerProduct", field(7, field(1, b"\x09\x09")) + field(5, struct.pack("<f", 1))),),
        "is broken",
    ),
    "a field longer than the file": ((b"\xa2\x06\xff\xff\xff\x7f",), "is broken"),
    "a number without end": ((b"\xff" * 20,), "is broken"),
    "a text": ((b"this is no model",), "is broken"),
}


@pytest.mark.parametrize("kind", list(FOREIGN))
def test_what_is_no_network_of_ours_is_refused_with_the_reason(tmp_path, kind):
    parts, text = FOREIGN[kind]
    with pytest.raises(ModelUnusable) as caught:
        read(tmp_path, *parts)
    assert text in str(caught.value)
    assert "foreign.caffemodel" in str(caught.value)


@given(some.binary(max_size=200))
def test_any_bytes_are_either_read_or_refused(content):
    try:
        layers = decoded(content, "any")
    except ModelUnusable:
        return
    assert isinstance(layers, list)


@given(some.integers(1, 2**29 - 1), some.integers(0, 2**64 - 1), some.binary(max_size=300))
def test_fields_come_back_as_they_were_written(place, value, content):
    message = wire.varint(place, value) + wire.nested(place, content) + wire.real(place, 0.5)
    found = [(kind, bytes(each) if kind != wire.VARINT else each) for _, kind, each in wire.fields(memoryview(message))]
    assert found == [(0, value), (2, content), (5, struct.pack("<f", 0.5))]


# ---- texts


def parsed(text):
    """The messages of a prototxt as lists of (name, value), where a value is a text or such a list."""
    words = text.replace("{", " { ").replace("}", " } ").split()

    def message(at):
        made = []
        while at < len(words) and words[at] != "}":
            if words[at + 1] == "{":
                value, end = message(at + 2)
                made.append((words[at], value))
                at = end + 1
            else:
                made.append((words[at].removesuffix(":"), words[at + 1].strip('"')))
                at += 2
        return made, at

    made, end = message(0)
    assert end == len(words)
    return made


def layers_of(text):
    return [dict(value) for name, value in parsed(text) if name == "layer"]


def test_the_network_to_deploy_is_its_layers_in_place():
    _, saved = network(bn=True)
    layers = layers_of(caffe.deploy_text(saved, TWO))
    assert [each["type"] for each in layers] == [
        "Input",
        *["InnerProduct", "BatchNorm", "Scale", "ReLU"] * 2,
        "InnerProduct",
        "Softmax",
    ]
    assert [value for _, value in dict(layers[0]["input_param"])["shape"]] == ["1", "3", "1", "1"]
    assert [dict(each["inner_product_param"])["num_output"] for each in layers if each["type"] == "InnerProduct"] == [
        "4",
        "5",
        "2",
    ]
    below = "data"
    for each in layers[1:]:
        assert each["bottom"] == below
        below = each["top"]
    assert below == "prob"


@pytest.mark.parametrize(
    ("target", "last"),
    [
        (Target("multi_label", classes=2), "Sigmoid"),
        (Target("regression", targets=2), "InnerProduct"),
        (Target("autoencoder"), "InnerProduct"),
    ],
)
def test_the_last_layer_to_deploy_says_what_outputs_mean(target, last):
    assert layers_of(caffe.deploy_text(network()[1], target))[-1]["type"] == last


@pytest.mark.parametrize(
    ("target", "loss", "truth"),
    [
        (TWO, "SoftmaxWithLoss", "label"),
        (Target("classification", classes=2, ignored=255), "SoftmaxWithLoss", "label"),
        (Target("soft_labels", classes=2), "SigmoidCrossEntropyLoss", "label"),
        (Target("regression", targets=2), "EuclideanLoss", "label"),
        (Target("autoencoder"), "EuclideanLoss", "data"),
    ],
)
def test_the_network_to_train_has_data_dropout_and_loss(target, loss, truth):
    layers = parsed(caffe.network_text(network()[1], target, 64, 16))
    made = [value for name, value in layers if name == "layer"]
    assert [dict(dict(each)["include"])["phase"] for each in made[:2]] == ["TRAIN", "TEST"]
    assert [dict(dict(each)["memory_data_param"])["batch_size"] for each in made[:2]] == ["64", "16"]
    dropped = [dict(each) for each in made if dict(each)["type"] == "Dropout"]
    assert [dict(each["dropout_param"])["dropout_ratio"] for each in dropped] == ["0.5"]
    assert dict(made[-1])["type"] == loss
    assert [value for name, value in made[-1] if name == "bottom"] == ["ip2", truth]
    assert ("loss_param", [("ignore_label", "255")]) in made[-1] or target.ignored is None


@pytest.mark.parametrize(
    ("target", "options", "comments"),
    [
        (Target("regression", targets=2), {"class_weights": (1, 2)}, []),
        (Target("regression", targets=2), {"distance": "L1"}, ["mean absolute difference"]),
        (Target("autoencoder"), {"distance": "L2"}, ["mean squared difference"]),
        (TWO, {"distance": "L1", "class_weights": (1.0, 2.5)}, ["class weights 1 2.5"]),
    ],
)
def test_a_loss_that_caffe_has_not_is_told_in_a_comment(target, options, comments):
    text = caffe.network_text(network()[1], target, 64, 16, **options)
    found = [line for line in text.splitlines() if line.startswith("#")]
    assert len(found) == len(comments)
    assert all(wanted in line for wanted, line in zip(comments, found, strict=True))


def test_the_solver_is_told_in_the_words_of_caffe():
    options = SolverOptions(iterations=500, solver_type="NESTEROV", lr_policy="multistep", stepvalue=(100, 200))
    text = caffe.solver_text(options.resolved(), "mlp.prototxt", "model", has_gpu=False)
    found = [line.split(": ") for line in text.splitlines()]
    assert ["net", '"mlp.prototxt"'] in found
    assert ["max_iter", "500"] in found
    assert ["type", '"Nesterov"'] in found
    assert [value for name, value in found if name == "stepvalue"] == ["100", "200"]
    assert ["solver_mode", "CPU"] in found
    other = SolverOptions(solver_type="MADGRAD").resolved()
    assert '# type: "MADGRAD"' in caffe.solver_text(other, "mlp.prototxt", "model", has_gpu=False)
