import pytest

from ssl_zoo.evaluators.validation import check_validation, validation_split


def test_the_two_parts_are_the_whole_and_the_same_each_time() -> None:
    rest, held = validation_split(10, 0.2)
    assert sorted([*rest.tolist(), *held.tolist()]) == list(range(10))
    assert len(held) == 2
    assert held.tolist() == validation_split(10, 0.2)[1].tolist()


@pytest.mark.parametrize(("share", "held"), [(0.01, 1), (0.99, 2)])
def test_neither_part_is_empty(share: float, held: int) -> None:
    assert len(validation_split(3, share)[1]) == held


@pytest.mark.parametrize("share", [0, 1, -0.1])
def test_a_share_outside_its_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match=r"evaluators\.x\.validation"):
        check_validation("evaluators.x", share)
