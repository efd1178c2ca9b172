"""Networks in files of torch: read back whole, and never as code."""

import pickle
import zipfile

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from ml import templates  # noqa: E402
from ml.errors import ModelUnusable  # noqa: E402
from ml.neural import saved as saving  # noqa: E402
from ml.neural.saved import Saved  # noqa: E402
from ml.options.target import Target  # noqa: E402

STRUCTURE = {"inputs": 4, "outputs": 3, "hidden": [5], "activation": "tanh", "dropout": [0.2], "bn": True}


@pytest.fixture
def network():
    torch.manual_seed(4)
    made = templates.find("mlp").build(STRUCTURE)
    made.start()
    return made.eval()


@pytest.fixture
def saved(network):
    return saving.of_network(network, "mlp", STRUCTURE, Target("classification", classes=3, ignored=9), 7)


def test_a_network_comes_back_as_it_was(tmp_path, network, saved):
    saving.write_network(tmp_path / "a.npt", saved)
    found = saving.read_network(tmp_path / "a.npt")
    assert (found.template, found.structure, found.target, found.done) == ("mlp", STRUCTURE, saved.target, 7)
    assert (found.inputs, found.outputs) == (4, 3)
    # Two affine layers and the scale and shift of the batch normalisation; its averages are not learned.
    assert found.parameters == (4 * 5 + 5) + 2 * 5 + (5 * 3 + 3)
    inputs = torch.randn(6, 4)
    assert torch.equal(saving.built(found).eval()(inputs), network(inputs))


def test_the_file_holds_plain_values_that_torch_itself_reads(tmp_path, saved):
    saving.write_network(tmp_path / "a.npt", saved)
    content = torch.load(tmp_path / "a.npt", weights_only=True)
    assert content["structure"] == STRUCTURE
    assert set(content["weights"]) == set(saved.weights)


def test_the_state_dictionary_of_any_affine_layers_is_a_network(tmp_path):
    other = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2, bias=False))
    torch.save(other.state_dict(), tmp_path / "a.pt")
    found = saving.read_network(tmp_path / "a.pt")
    assert (found.template, found.target, found.parameters) == ("mlp", None, 4 * 6 + 6 + 6 * 2 + 2)
    assert found.structure == {
        "inputs": 4, "outputs": 2, "hidden": [6], "activation": "", "dropout": [0.0], "bn": False
    }  # fmt: skip
    found.structure["activation"] = "tanh"
    inputs = torch.randn(5, 4)
    assert torch.allclose(saving.built(found)(inputs), other(inputs), atol=1e-6)


def test_a_single_affine_layer_is_lregression(tmp_path):
    torch.save(nn.Linear(4, 2).double().state_dict(), tmp_path / "a.pt")
    found = saving.read_network(tmp_path / "a.pt")
    assert found.template == "lregression"
    assert saving.built(found)(torch.zeros(1, 4)).dtype == torch.float32


class Evil:
    def __reduce__(self):
        return (print, ("this ran",))


def pickled(path):
    path.write_bytes(pickle.dumps(Evil()))


def saved_evil(path):
    torch.save({"format": "modelyard network", "weights": Evil()}, path)


def traced(path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)).save(path)


def a_zip(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", b"nothing")


def cut_off(path):
    torch.save(nn.Linear(50, 50).state_dict(), path)
    path.write_bytes(path.read_bytes()[:3000])


BROKEN = {
    "no such file": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("this is no model"),
    "a pickle with code": pickled,
    "a file of torch with code": saved_evil,
    "an archive of something else": a_zip,
    "cut off": cut_off,
    "a list": lambda path: torch.save([1, 2], path),
    "a dictionary of nothing": lambda path: torch.save({}, path),
    "a convolution": lambda path: torch.save(nn.Conv2d(1, 2, 3).state_dict(), path),
    "layers that do not follow": lambda path: torch.save(
        nn.Sequential(nn.Linear(4, 6), nn.Linear(5, 2)).state_dict(), path
    ),
    "batch normalisation of somebody else": lambda path: torch.save(
        nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6)).state_dict(), path
    ),
    "a part is missing": lambda path: torch.save({"format": "modelyard network", "template": "mlp"}, path),
    "a target that is none": lambda path: torch.save(
        {
            "format": "modelyard network",
            "template": "mlp",
            "structure": STRUCTURE,
            "weights": {},
            "target": {"kind": "magic"},
            "done": 1,
        },
        path,
    ),
}

WRONG_WEIGHTS = {
    "a list": lambda tensor: tensor.tolist(),
    "sparse": lambda tensor: tensor.to_sparse(),
    "complex": lambda tensor: tensor.to(torch.complex64),
    "quantized": lambda tensor: torch.quantize_per_tensor(tensor.float(), 0.1, 0, torch.qint8),
    "without numbers": lambda tensor: tensor.to("meta"),
    "one number for many": lambda tensor: torch.zeros(()).expand(2**20, 2**20),
}


@pytest.mark.filterwarnings("ignore")  # torch is about to give up some of these types
@pytest.mark.parametrize("is_ours", [True, False])
@pytest.mark.parametrize("kind", list(WRONG_WEIGHTS))
def test_weights_that_are_no_arrays_of_real_numbers_are_refused(tmp_path, saved, kind, is_ours):
    saving.write_network(tmp_path / "a.npt", saved)
    content = torch.load(tmp_path / "a.npt", weights_only=True)
    content["weights"] = {name: WRONG_WEIGHTS[kind](tensor) for name, tensor in content["weights"].items()}
    torch.save(content if is_ours else content["weights"], tmp_path / "a.npt")
    with pytest.raises(ModelUnusable, match=r"a\.npt"):
        saving.read_network(tmp_path / "a.npt")


@pytest.mark.parametrize("kind", list(BROKEN))
def test_what_is_no_network_is_refused_without_being_run(tmp_path, capfd, kind):
    path = tmp_path / "a.npt"
    BROKEN[kind](path)
    with pytest.raises(ModelUnusable) as caught:
        saving.read_network(path)
    assert "a.npt" in str(caught.value)
    assert "this ran" not in capfd.readouterr().out


def test_a_traced_model_is_refused_by_its_name(tmp_path):
    traced(tmp_path / "a.pt")
    with pytest.raises(ModelUnusable, match="traced model, which would run code of its own"):
        saving.read_network(tmp_path / "a.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"template": "resnet"},
        {"structure": {**STRUCTURE, "inputs": 5}},
        {"structure": {**STRUCTURE, "hidden": [2**24]}},
        {"structure": {**STRUCTURE, "hidden": [10**12]}},
        {"structure": {**STRUCTURE, "bn": False}},
        {"structure": {}},
        {"weights": {}},
        {"weights": {"ip0.weight": 3}},
    ],
)
def test_weights_that_do_not_fit_their_structure_build_nothing(saved, change):
    parts = {"template": saved.template, "structure": saved.structure, "weights": saved.weights}
    with pytest.raises(ModelUnusable):
        saving.built(Saved(**{**parts, **change}))


def test_weights_of_another_type_build_nothing(saved):
    saved.weights = {name: tensor.double() for name, tensor in saved.weights.items()}
    with pytest.raises(ModelUnusable, match="no single-precision numbers"):
        saving.built(saved)


def test_a_state_comes_back_as_it_was_and_nothing_else_does(tmp_path, saved):
    saving.write_state(tmp_path / "solver-7.pt", {"done": 7, "solver": {"x": torch.ones(2)}})
    found = saving.read_state(tmp_path / "solver-7.pt")
    assert found["done"] == 7
    assert torch.equal(found["solver"]["x"], torch.ones(2))
    saving.write_network(tmp_path / "other.pt", saved)
    for name in ("other.pt", "absent.pt"):
        with pytest.raises(ModelUnusable):
            saving.read_state(tmp_path / name)
