"""Where and with how many threads torch computes, and that it computes the same each time."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from ml.errors import OutOfMemory


def choose(wanted: str, gpuid: Sequence[int]) -> tuple[torch.device, str | None]:
    """The device to compute on, and what to say where it is another one than was asked for.

    wanted : "cpu" or "cuda". gpuid : the numbers of the GPUs that may be used, the first one counts; -1 for any.
    """
    if wanted == "cpu":
        return torch.device("cpu"), None
    if not torch.cuda.is_available():
        return torch.device("cpu"), "the torch installed here finds no GPU: the CPU is used"
    number = max(0, gpuid[0] if gpuid else 0)
    count = torch.cuda.device_count()
    if number >= count:
        return torch.device("cuda", 0), f"there is no GPU {number}, only 0 to {count - 1}: GPU 0 is used"
    return torch.device("cuda", number), None


def set_up(threads: int, device: torch.device, *, training: bool = False) -> None:
    """Let this process compute with so many threads, on the device and, to train, with deterministic kernels only."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
    if device.type == "cuda":
        # What asks for no GPU by number, such as pinned memory, must not occupy another one, which may be full.
        torch.cuda.set_device(device)
    if training:
        # cuBLAS is deterministic with a workspace of its own only; it reads this when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory with NaN finds kernels that read it; ours were found to be none, and it takes time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False


def random_states(device: torch.device) -> dict[str, torch.Tensor]:
    """The states of the random generators that a training on the device draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, torch.Tensor], device: torch.device) -> None:
    """Take up states that `random_states` told; those of another kind of device are left out."""
    torch.set_rng_state(states["cpu"].cpu())
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"].cpu(), device)


@contextmanager
def memory_errors(advice: str) -> Iterator[None]:
    """Turn torch's errors over memory that is not there into OutOfMemory, which says `advice`."""
    try:
        yield
    except RuntimeError as error:
        # On the CPU it has no class of its own.
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "the machine"
        raise OutOfMemory(f"{where} has not enough memory: {advice}") from None
