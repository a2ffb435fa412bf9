"""What a method needs of data and views is checked before training."""

from types import SimpleNamespace

import pytest

from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from ssl_zoo.tasks import pretrain
from tests.training.test_checkpoints import backbone


def data(num_views: int, labelled: bool) -> SimpleNamespace:
    return SimpleNamespace(views=[None] * num_views, rows_have_labels=labelled, facts={})


def test_too_few_views_and_missing_labels_are_refused() -> None:
    simclr, supervised = SimCLR(backbone(), 4, 2, 0.1), Supervised(backbone(), 3, 0.0)
    pretrain.check_method(simclr, data(2, labelled=False))
    pretrain.check_method(supervised, data(1, labelled=True))
    with pytest.raises(ValueError, match="SimCLR needs 2 views of each example, these give 1"):
        pretrain.check_method(simclr, data(1, labelled=False))
    with pytest.raises(ValueError, match="Supervised learns from labels"):
        pretrain.check_method(supervised, data(1, labelled=False))
