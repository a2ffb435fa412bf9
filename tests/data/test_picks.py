"""Settings picked from a few numbers."""

import pytest

from ssl_zoo.data.picks import (
    FLOP_LIMIT,
    MOST_STEPS,
    Pick,
    format_picks,
    is_open,
    pick_batch_size,
    pick_budget,
    pick_image_size,
)


@pytest.mark.parametrize(
    ("median", "count", "on_gpu", "size"),
    [
        (8, 1_000, False, 8),
        (32, 50_000, False, 32),
        (33, 50_000, True, 32),
        (112, 9_469, False, 96),
        (371, 200, False, 128),
        (371, 9_469, False, 96),
        (371, 9_469, True, 224),
        (4_000, 10**6, True, 224),
    ],
)
def test_image_size(median: int, count: int, on_gpu: bool, size: int) -> None:
    pick = pick_image_size(median, count, on_gpu)
    assert pick.value == size
    assert ("on a CPU" in pick.why) == (not on_gpu and min(median, 224) > size and size >= 96)


@pytest.mark.parametrize(
    ("count", "size"),
    [(2, 2), (3, 2), (15, 8), (17, 16), (200, 16), (640, 32), (1_438, 64), (5_120, 256), (10**6, 256)],
)
def test_batch_size(count: int, size: int) -> None:
    assert pick_batch_size(count).value == size


def test_small_data_sees_enough_steps_and_large_data_ends() -> None:
    assert pick_budget(160, 16, 1e6, "cpu") == Pick("budget.epochs", 100, "10 steps per epoch, 0.001 GFLOP per example")
    assert pick_budget(50_000, 256, 1e6, "cpu").value == 30
    large = pick_budget(50_000, 250, FLOP_LIMIT["cpu"] / 500_000, "cpu")
    assert (large.key, large.value) == ("budget.epochs", 10)
    assert "30 would take long" in large.why
    larger = pick_budget(10**6, 250, FLOP_LIMIT["cpu"] / 500_000, "cpu")
    assert (larger.key, larger.value) == ("budget.steps", 2_000)
    unknown = pick_budget(20_000, 64, 1e6, "cpu", is_exact=False)
    assert (unknown.key, unknown.value) == ("budget.steps", MOST_STEPS)


def test_a_pick_names_its_override() -> None:
    picks = [Pick("data.image_size", 96, "of the median"), Pick("data.mean", [0.5, 0.25], "a sample")]
    assert format_picks(picks) == [
        "data.image_size=96    (of the median; data.image_size=...)",
        "data.mean=[0.5,0.25]  (a sample; data.mean=...)",
    ]
    assert str(Pick("data.label_column", None, "")) == "data.label_column=null"


def test_only_auto_is_open() -> None:
    assert is_open({"image_size": "auto"}, "image_size")
    assert not is_open({"image_size": 32}, "image_size")
    assert not is_open({}, "image_size")
