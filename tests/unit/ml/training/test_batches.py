"""Batches without end, over every kind of table."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ml.connectors.columnar import ColumnarWriter
from ml.errors import BadInput
from ml.tables import DenseTable, SparseTable
from ml.training.batches import Batches

ROWS, WIDTH = 23, 3
#: Every number tells its row, so that rows can be recognised.
FEATURES = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
LABELS = np.arange(ROWS, dtype=np.int32)


def dense(folder):
    return DenseTable(FEATURES, LABELS, None, "rows")


def sparse(folder):
    return SparseTable(csr_matrix(FEATURES), LABELS, None, "rows")


def columnar(folder):
    writer = ColumnarWriter(folder, WIDTH)
    writer.append(FEATURES, LABELS)
    return writer.finish("rows")


@pytest.fixture(params=[dense, sparse, columnar])
def table(request, tmp_path):
    return request.param(tmp_path)


def take(batches, rows):
    """The numbers of the next rows; features and labels tell the same."""
    features = np.full((rows, WIDTH), np.nan, np.float32)
    labels = np.full(rows, -1, np.int64)
    batches.fill(features, labels)
    assert np.array_equal(features, FEATURES[labels])
    return labels.tolist()


def test_without_a_seed_rows_come_as_they_lie_and_then_again(table):
    batches = Batches(table)
    assert take(batches, 10) == list(range(10))
    assert take(batches, 20) == [*range(10, ROWS), *range(7)]
    assert batches.position == (1, 7)


def test_with_a_seed_every_pass_has_all_rows_in_an_order_of_its_own(table):
    batches = Batches(table, seed=5)
    passes = [take(batches, ROWS) for _ in range(4)]
    assert all(sorted(each) == list(range(ROWS)) for each in passes)
    assert len({tuple(each) for each in passes}) == 4
    again = Batches(table, seed=5)
    assert [take(again, ROWS) for _ in range(4)] == passes
    assert take(Batches(table, seed=6), ROWS) != passes[0]


@pytest.mark.parametrize("size", [1, 7, ROWS, 60])
def test_the_size_of_batches_changes_nothing_about_the_rows(table, size):
    whole = take(Batches(table, seed=3), 240)
    batches = Batches(table, seed=3)
    assert [row for _ in range(240 // size) for row in take(batches, size)] == whole[: 240 // size * size]


@pytest.mark.parametrize("seed", [None, 9])
@pytest.mark.parametrize("before", [0, 5, ROWS, ROWS + 1, 3 * ROWS - 1])
def test_a_position_is_all_that_is_needed_to_go_on(table, seed, before):
    first = Batches(table, seed)
    if before:
        take(first, before)
    second = Batches(table, seed)
    second.go_to(*first.position)
    assert take(second, 50) == take(first, 50)


def test_rows_can_be_passed_over(table):
    skipping, other = Batches(table, seed=2), Batches(table, seed=2)
    take(other, 4 + 60)
    take(skipping, 4)
    skipping.skip(60)
    assert take(skipping, 30) == take(other, 30)


def test_a_position_behind_the_end_of_a_table_that_became_shorter_begins_the_next_pass(table):
    batches = Batches(table)
    batches.go_to(4, ROWS + 10)
    assert take(batches, 3) == [0, 1, 2]
    assert batches.position == (5, 3)


def test_labels_of_any_shape_take_the_type_of_the_array_they_are_put_in():
    labels = np.linspace(0, 1, ROWS * 2).reshape(ROWS, 2)
    batches = Batches(DenseTable(FEATURES, labels, None, "rows"), seed=1)
    features, found = np.empty((30, WIDTH), np.float32), np.empty((30, 2), np.float32)
    batches.fill(features, found)
    assert np.array_equal(found, labels[(features[:, 0] / WIDTH).astype(int)].astype(np.float32))


def test_features_are_given_without_labels_where_there_are_none():
    batches = Batches(DenseTable(FEATURES, None, None, "rows"))
    features = np.empty((5, WIDTH), np.float32)
    batches.fill(features, None)
    assert np.array_equal(features, FEATURES[:5])


def test_a_table_without_rows_is_refused():
    with pytest.raises(BadInput, match="rows has no rows to train on"):
        Batches(DenseTable(FEATURES[:0], LABELS[:0], None, "rows"))
