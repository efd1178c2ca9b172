"""What the names of a repository's files tell."""

from __future__ import annotations

import pytest

from ml.repository_files import belongs, best_iteration, in_order, is_model, is_state, iteration_of, newest, published

TORCH = (".pt", ".npt", ".ptw")
CAFFE = (".caffemodel",)
XGBOOST = (".model",)


@pytest.mark.parametrize(
    ("name", "iteration"),
    [
        ("checkpoint-400.npt", 400),
        ("solver-7.pt", 7),
        ("model_iter_1000.caffemodel", 1000),
        ("mine_iter_20.solverstate", 20),
        ("0100.model", 100),
        ("12345.model", 12345),
        ("resnet_18.pt", None),
        ("100.model", None),
        ("checkpoint-latest.npt", None),
        ("best_model_test_0.txt", None),
        ("checkpoint-" + "9" * 400 + ".npt", None),
    ],
)
def test_iterations_are_read_from_the_names_that_deepdetect_gives(name: str, iteration: int | None) -> None:
    assert iteration_of(name) == iteration


def test_state_of_a_solver_is_no_model() -> None:
    assert is_state("solver-100.pt")
    assert is_state("model_iter_100.solverstate")
    assert not is_model("solver-100.pt", TORCH)
    assert is_model("checkpoint-100.pt", TORCH)
    assert is_model("anything.npt", TORCH)
    assert not is_model("0100.model", TORCH)


def test_what_stands_beside_a_model_belongs_to_it_and_other_files_do_not() -> None:
    for name in ("corresp.txt", "best_model.txt", "best_model_test_1.txt", "vocab.dat", "bounds.dat", "mlp.prototxt"):
        assert belongs(name, XGBOOST)
    for name in ("train.csv", "config.json", "model.json", "metrics.json", "README.txt", "checkpoint-1.npt"):
        assert not belongs(name, XGBOOST)


@pytest.mark.parametrize(
    ("text", "iteration"),
    [
        ("iteration:400\nf1:0.9731\n", 400),
        ("iteration: 12 \nacc:1\n", 12),
        ("f1:0.9\niteration:3", 3),
        ("", None),
        ("iteration:many", None),
        ("iteration:-1", None),
    ],
)
def test_best_iteration_is_read(text: str, iteration: int | None) -> None:
    assert best_iteration(text) == iteration


def test_only_the_newest_of_each_kind_its_iteration_and_the_best_one_are_taken() -> None:
    times = {f"checkpoint-{number}.npt": number for number in range(100, 1100, 100)}
    times |= {f"solver-{number}.pt": number for number in range(100, 900, 100)}
    times |= {"corresp.txt": 1, "best_model.txt": 1, "train.csv": 1, "config.json": 1}
    assert newest(times, TORCH, [300]) == {
        "checkpoint-1000.npt",
        "checkpoint-800.npt",  # the newest state goes with it
        "solver-800.pt",
        "checkpoint-300.npt",
        "solver-300.pt",
        "corresp.txt",
        "best_model.txt",
    }


def test_newest_goes_by_time_and_by_number_where_times_are_equal() -> None:
    assert newest({"0100.model": 5, "0200.model": 4}, XGBOOST) == {"0100.model"}
    assert newest({"0900.model": 5, "1000.model": 5}, XGBOOST) == {"1000.model"}


def test_files_without_a_number_are_all_taken() -> None:
    times = {"resnet18.pt": 1, "backbone.pt": 2, "checkpoint-5.ptw": 3}
    assert newest(times, TORCH) == set(times)


def test_publication_leaves_out_other_checkpoints_and_what_resumes() -> None:
    names = ["checkpoint-100.npt", "checkpoint-200.npt", "checkpoint-100.ptw", "solver-100.pt", "solver-200.pt"]
    names += ["backbone.pt", "corresp.txt", "best_model.txt", "bounds.dat", "training.json", "modelyard.json"]
    assert published(names, TORCH, "checkpoint-100.npt") == {
        "checkpoint-100.npt",
        "checkpoint-100.ptw",
        "backbone.pt",
        "corresp.txt",
        "best_model.txt",
        "bounds.dat",
        "modelyard.json",
    }


def test_order_is_by_iteration_with_the_described_file_last() -> None:
    names = ["checkpoint-1000.npt", "checkpoint-200.npt", "corresp.txt", "checkpoint-900.npt"]
    assert in_order(names, "checkpoint-900.npt") == [
        "corresp.txt",
        "checkpoint-200.npt",
        "checkpoint-1000.npt",
        "checkpoint-900.npt",
    ]
    assert in_order(["b", "a"], None) == ["a", "b"]
