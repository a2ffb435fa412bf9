"""A function on two processes, and what each returned."""

import pytest
import torch

from ssl_zoo.conformance import processes
from ssl_zoo.distributed import all_gather, rank, world_size


def gathered(x: float) -> list[float]:
    return all_gather(torch.tensor([x + rank()])).tolist()


def broken() -> None:
    raise ArithmeticError(f"process {rank()} of {world_size()}")


def test_each_process_answers_in_order() -> None:
    assert processes.run_processes(2, gathered, 3.0) == [[3.0, 4.0], [3.0, 4.0]]


def test_an_error_of_a_process_is_ours() -> None:
    with pytest.raises(Exception, match="ArithmeticError: process"):
        processes.run_processes(2, broken)
