"""Small trainings with the backend xgboost, for its tests."""

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn import datasets

from ml.backends import xgboost as backend
from ml.backends.base import Previous
from ml.connectors.csv import Fitted
from ml.options import load_training
from ml.tables import DenseTable, SparseTable, TrainingData

DATA = {
    "iris": (datasets.load_iris, {"nclasses": 3}),
    "wine": (datasets.load_wine, {"nclasses": 3}),
    "breast cancer": (datasets.load_breast_cancer, {"nclasses": 2, "objective": "binary:logistic"}),
    "diabetes": (datasets.load_diabetes, {"ntargets": 1, "regression": True}),
}
ROUNDS = 20
NONE, NOWHERE = Previous(), Path("nowhere")


def options(mllib, label=None, **changes):
    label = label or [f"y{each}" for each in range(mllib.get("ntargets", 1))]
    parameters = {"input": {"label": label}, "mllib": {"iterations": ROUNDS, **mllib, **changes}}
    return load_training("xgboost", "csv", parameters).value


def tables(features, labels, target, test_share=0.2, sparse=False):
    """A training set and a test set of rows in a fixed random order."""
    order = np.random.default_rng(0).permutation(len(features))
    features, labels = features[order].astype(np.float32), np.asarray(labels)[order]
    if target.kind == "classification":
        labels = labels.astype(np.int32)
    else:
        labels = labels.reshape(len(labels), -1).astype(np.float64 if target.kind == "regression" else np.float32)
    cut = int(len(features) * (1 - test_share))
    names = [f"f{each}" for each in range(features.shape[1])]
    kind, form = (SparseTable, csr_matrix) if sparse else (DenseTable, np.asarray)
    train = kind(form(features[:cut]), labels[:cut], None, "train")
    test = kind(form(features[cut:]), labels[cut:], None, "split")
    return TrainingData(train, [test], Fitted([*names, "y0"], names, ["y0"], "", [], [0], ",", '"'), {}, [])


def data_of(name):
    loader, mllib = DATA[name]
    features, labels = loader(return_X_y=True)
    return tables(features, labels, options(mllib).mllib.target), mllib


def begin(wanted, data, threads=1, **more):
    return started(wanted, data, threads, **more)[0]


def started(wanted, data, threads=1, *, resume=None, previous=NONE, scratch=NOWHERE, device="cpu"):
    """A trainer, and the warnings; only tables on disk and models that are kept on the way need a folder."""
    return backend.start(
        wanted, data, threads=threads, device=device, seed=0, scratch=scratch, resume=resume, previous=previous
    )


def run(trainer, rounds=ROUNDS):
    outputs = []
    while trainer.done < rounds:
        trainer.step()
        outputs.append(trainer.test(0)[0])
    return outputs


def state_of(trainer, folder):
    folder.mkdir(parents=True)
    trainer.save_state(folder)
    return folder


def bytes_of(trainer, folder, rounds=ROUNDS):
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / trainer.save_model(folder, rounds)).read_bytes()
