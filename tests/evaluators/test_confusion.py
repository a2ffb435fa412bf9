"""Macro F1 and the confusion matrix are scikit-learn's."""

import pytest
import torch
from sklearn import metrics

from ssl_zoo.evaluators.confusion import confusion_matrix, macro_f1


@pytest.mark.parametrize("classes", [2, 5])
def test_equal_to_scikit_learn(classes: int) -> None:
    truth = torch.randint(classes, (80,), generator=torch.Generator().manual_seed(0))
    predicted = torch.randint(classes - 1, (80,), generator=torch.Generator().manual_seed(1))  # one class never
    found = confusion_matrix(truth, predicted, classes + 1)  # and one that does not occur
    expected = metrics.confusion_matrix(truth, predicted, labels=range(classes + 1))
    assert (found.numpy() == expected).all()
    assert macro_f1(found) == pytest.approx(metrics.f1_score(truth, predicted, average="macro"), abs=1e-6)
