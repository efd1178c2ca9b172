"""Which device is chosen; there is no GPU here, so torch is made to tell of some."""

import pytest

torch = pytest.importorskip("torch")

from ml.errors import OutOfMemory  # noqa: E402
from ml.neural import device, library  # noqa: E402
from ml.options.torch import TorchOptions  # noqa: E402
from tests.unit.ml.neural import tiny  # noqa: E402


def gpus(monkeypatch, count, bf16=True):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: bf16)


@pytest.mark.parametrize(
    ("wanted", "gpuid", "count", "chosen", "remark"),
    [
        ("cpu", (0,), 2, "cpu", None),
        ("cuda", (0,), 2, "cuda:0", None),
        ("cuda", (1,), 2, "cuda:1", None),
        ("cuda", (1, 0), 2, "cuda:1", None),
        ("cuda", (-1,), 2, "cuda:0", None),
        ("cuda", (), 2, "cuda:0", None),
        ("cuda", (5,), 2, "cuda:0", "there is no GPU 5, only 0 to 1"),
        ("cuda", (0,), 0, "cpu", "the CPU is used"),
    ],
)
def test_the_gpu_asked_for_is_chosen_or_the_answer_says_which(monkeypatch, wanted, gpuid, count, chosen, remark):
    gpus(monkeypatch, count)
    found, text = device.choose(wanted, gpuid)
    assert str(found) == chosen
    assert text is None if remark is None else remark in text


def test_a_training_for_a_gpu_that_is_not_there_is_done_on_the_cpu_and_says_so(monkeypatch, tmp_path):
    gpus(monkeypatch, 0)
    trainer, remarks = tiny.begin(tmp_path, device="cuda", gpu=True)
    assert remarks == [("parameters.mllib.gpu", "the torch installed here finds no GPU: the CPU is used")]
    assert len(tiny.steps(trainer, 2)) == 2


@pytest.mark.parametrize(
    ("asked", "kind", "bf16", "used", "remark"),
    [
        ("", "cuda", True, "", None),
        ("fp16", "cuda", True, "fp16", None),
        ("bf16", "cuda", True, "bf16", None),
        ("bf16", "cuda", False, "fp16", "this GPU has no bf16"),
        ("bf16", "cpu", True, "bf16", None),
        ("fp16", "cpu", True, "bf16", "fp16 needs a GPU"),
    ],
)
def test_mixed_precision_is_what_the_device_can_do(monkeypatch, asked, kind, bf16, used, remark):
    gpus(monkeypatch, 1, bf16)
    found, text = library._mixed(TorchOptions(mixed_precision=asked), torch.device(kind))
    assert found == used
    assert text is None if remark is None else remark in text


def test_states_of_a_gpu_are_taken_and_put_back_beside_those_of_the_cpu(monkeypatch):
    kept = {"cuda:1": torch.tensor([1, 2])}
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda on: kept[str(on)])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, on: kept.update({str(on): state}))
    on = torch.device("cuda", 1)
    torch.manual_seed(3)
    states = device.random_states(on)
    wanted = torch.rand(3)
    kept["cuda:1"] = torch.tensor([9, 9])
    device.set_random_states(states, on)
    assert torch.equal(torch.rand(3), wanted)
    assert kept["cuda:1"].tolist() == [1, 2]
    # A training that goes on on another kind of device takes what there is.
    device.set_random_states({"cpu": states["cpu"]}, on)
    device.set_random_states(states, torch.device("cpu"))
    assert torch.equal(torch.rand(3), wanted)


def test_threads_are_as_many_as_asked_for():
    before = torch.get_num_threads()
    try:
        device.set_up(3, torch.device("cpu"))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_gpu_that_was_chosen_is_the_only_one_in_use(monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    device.set_up(torch.get_num_threads(), torch.device("cuda", 1))
    device.set_up(torch.get_num_threads(), torch.device("cpu"))
    assert used == [torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("error", "where"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "the machine"),
    ],
)
def test_a_lack_of_memory_says_where_and_what_to_do(error, where):
    with (
        pytest.raises(OutOfMemory, match=f"{where} has not enough memory: take less"),
        device.memory_errors("take less"),
    ):
        raise error


def test_other_errors_of_torch_stay_what_they_are():
    with pytest.raises(RuntimeError, match="shapes"), device.memory_errors("take less"):
        raise RuntimeError("shapes do not fit")
