"""Keyed draws: the published generator, uniform, independent of neighbours, indifferent to the batch."""

import math

import torch

from ssl_zoo.views.keyed_random import KeyedRandom, _splitmix64


def draws(n: int, seed: int = 0, epoch: int = 0, view: int = 0, start: int = 0) -> KeyedRandom:
    return KeyedRandom(seed, epoch, torch.arange(start, start + n), view)


def test_draws_follow_the_published_generator() -> None:
    outputs = _splitmix64(torch.tensor(1234567), torch.arange(5))
    expected = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert [value % 2**64 for value in outputs.tolist()] == expected
    assert [int(_splitmix64(torch.tensor(1234567), n)) % 2**64 for n in range(5)] == expected


def test_draws_are_uniform() -> None:
    u = draws(20_000).uniform(50)
    assert u.dtype == torch.float32
    assert u.min() >= 0
    assert u.max() < 1
    for numbers in (
        u,
        u[:, 0],
        u[0],
        draws(20_000).chance(),
        torch.stack([draws(1, s).uniform(1) for s in range(2000)]),
    ):
        n = numbers.numel()
        counts = torch.histc(numbers.flatten(), 64, 0, 1)
        chi_square = ((counts - n / 64) ** 2 / (n / 64)).sum()
        assert abs(numbers.mean() - 0.5) < 4.5 / math.sqrt(12 * n)
        assert chi_square < 63 + 5 * math.sqrt(2 * 63)


def test_draws_of_neighbours_are_independent() -> None:
    n, here = 50_000, draws(50_000, start=100).at(2).uniform(2)
    one = here[:, 0]
    neighbours = {
        "index": draws(n, start=101).at(2).uniform(1)[:, 0],
        "epoch": draws(n, epoch=1, start=100).at(2).uniform(1)[:, 0],
        "view": draws(n, view=1, start=100).at(2).uniform(1)[:, 0],
        "position": draws(n, start=100).at(3).uniform(1)[:, 0],
        "seed": draws(n, seed=1, start=100).at(2).uniform(1)[:, 0],
        "number": here[:, 1],
        "chance": draws(n, start=100).at(2).chance(),
    }
    for name, other in neighbours.items():
        correlation = torch.corrcoef(torch.stack([one, other]))[0, 1]
        assert abs(correlation) < 4.5 / math.sqrt(n), name
        cells = torch.bincount((one * 16).long() * 16 + (other * 16).long(), minlength=256)
        chi_square = ((cells - n / 256) ** 2 / (n / 256)).sum()
        assert chi_square < 255 + 5 * math.sqrt(2 * 255), name


def test_draws_do_not_depend_on_the_batch() -> None:
    indices = torch.tensor([7, 3, 12, 900])
    together = KeyedRandom(5, torch.tensor([0, 1, 2, 2]), indices, 1).at(4)
    alone = [KeyedRandom(5, epoch, indices[k : k + 1], 1).at(4).uniform(3) for k, epoch in enumerate((0, 1, 2, 2))]
    assert torch.equal(together.uniform(3), torch.cat(alone))
    assert torch.equal(together[torch.tensor([2, 0])].uniform(3), together.uniform(3)[[2, 0]])
    assert torch.equal(together.uniform(8)[:, :3], together.uniform(3))


def test_normals_are_normal() -> None:
    z = draws(1000).normal(1000)
    assert abs(z.mean()) < 0.005
    assert abs(z.std() - 1) < 0.005
    assert abs((z**4).mean() - 3) < 0.05
    assert 4 < z.abs().max() < 5.5
