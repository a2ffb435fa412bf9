"""Every method of conf/method becomes subjects; what cannot be examined says why."""

import pickle

import pytest
import torch

from ssl_zoo.conformance import subjects
from ssl_zoo.conformance.subjects import FACTS, LENGTH, NUM_SPECIAL, PAD_ID, RAGGED, B, conv_net, shrink_config


def test_a_method_is_examined_on_each_backbone_it_takes() -> None:
    assert [s.name for s in subjects.subjects_of("simclr")] == ["simclr/conv", "simclr/vit", "simclr/text"]
    assert [s.name for s in subjects.subjects_of("mlm")] == ["mlm/text"]
    assert subjects.subjects_of("mlm")[0].views == ("text",)


def test_batches_and_weights_depend_on_their_numbers_alone() -> None:
    subject = pickle.loads(pickle.dumps(subjects.subjects_of("byol")[0]))  # as another process gets it
    one, two, other = subject.batch(3), subject.batch(3), subject.batch(4)
    assert all(map(torch.equal, one.views, two.views))
    assert not torch.equal(one.views[0], other.views[0])
    assert not set(one.indices.tolist()) & set(other.indices.tolist())
    assert max(other.indices) < FACTS["num_train"]
    assert [view.shape[-1] for view in subject.batch(0, (8, 8)).views] == [16, 16, 8, 8]
    assert torch.equal(*(subject.build(5).state_dict()["projector.0.weight"] for _ in range(2)))


def test_texts_hold_padding_that_differs_from_row_to_row() -> None:
    (ids,) = subjects.subjects_of("mlm")[0].batch(0).views
    assert set((ids == PAD_ID).sum(dim=1).tolist()) == {0, 1, 2}
    assert ids.max() < FACTS["vocab_size"]


def test_texts_may_have_any_lengths() -> None:
    (ids,) = subjects.subjects_of("mlm")[0].batch(0, lengths=RAGGED).views
    assert torch.equal((ids != PAD_ID).sum(dim=1), RAGGED)
    assert set(RAGGED.tolist()) == set(range(3, LENGTH + 1))
    assert (ids[ids != PAD_ID] >= NUM_SPECIAL).all()


def test_large_numbers_shrink_and_small_ones_stay() -> None:
    config = {"hidden_dim": 2048, "temperature": 0.2, "flag": True, "sizes": [256, 96], "vocab_size": 999}
    small = {"hidden_dim": 64, "temperature": 0.2, "flag": True, "sizes": [64, 96], "vocab_size": 999}
    assert shrink_config(config, 64, {}) == small


def test_the_small_network_takes_views_of_any_size() -> None:
    assert {conv_net()(torch.randn(B, 3, side, side)).shape for side in (4, 8, 16)} == {(B, 32)}


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("ssl_zoo.methods.simclr.SimCRL", {}, "SimCRL"),
        ("no_package.Method", {}, "no_package"),
        ("torch.nn.Linear", {}, "no subclass"),
        ("ssl_zoo.methods.simclr.SimCLR", {"hidden_dim": 8, "width": 3}, "temperature"),
        ("ssl_zoo.methods.simclr.SimCLR", {"hidden_dim": 8, "out_dim": 4, "temperature": 0}, "method.temperature=0"),
    ],
)
def test_a_class_that_cannot_be_examined_is_refused(path: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        subjects.subjects_of_class(path, arguments)


def test_an_unknown_name_is_answered_with_near_ones() -> None:
    with pytest.raises(ValueError, match="did you mean simclr"):
        subjects.subjects_of("simcrl")
