"""What a method needs of data and views is checked before training."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from ssl_zoo.tasks import pretrain
from ssl_zoo.training.budget import Budget
from ssl_zoo.training.run_folder import FolderTaken
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


@pytest.mark.parametrize(
    ("budget", "said"),
    [
        (Budget("steps", 10, 10, None), "budget.steps=10 is 10 steps, and the run in run has made 12"),
        (Budget("epochs", 2, 10, None), "budget.epochs=2 is 10 steps"),
        (Budget("minutes", 1, None, 1.0), "budget.minutes=1 is 1 minutes, and the run in run has made 1.5"),
    ],
)
def test_a_budget_that_is_used_up_is_refused(budget: Budget, said: str) -> None:
    with pytest.raises(FolderTaken, match=said):
        pretrain.check_budget_left(budget, 12, 90.0, Path("run"))


@pytest.mark.parametrize("budget", [Budget("steps", 12, 12, None), Budget("minutes", 2, None, 2.0)])
def test_a_run_goes_on_to_a_budget_that_reaches_further(budget: Budget) -> None:
    pretrain.check_budget_left(budget, 12, 90.0, Path("run"))
