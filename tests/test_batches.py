import pytest
import torch

from actor_tune.models.batches import run_batches


def test_every_row_is_run_once_in_order_of_the_groups():
    done = []
    run_batches([[3, 1], [2], [0, 4]], done.extend, "Testing")
    assert done == [3, 1, 2, 0, 4]


def test_what_does_not_fit_is_halved_and_later_groups_with_it():
    sizes, done = [], []

    def run(rows):
        sizes.append(len(rows))
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        done.extend(rows)

    run_batches([list(range(8)), list(range(8, 16))], run, "Testing")
    assert done == list(range(16))
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2, 2, 2]


def test_a_single_row_that_does_not_fit_is_an_error():
    def run(rows):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        run_batches([[0, 1]], run, "Testing")


def test_other_errors_are_not_taken_for_a_lack_of_memory():
    def run(rows):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        run_batches([[0, 1]], run, "Testing")
