"""What the predictions of a classifier are worth: macro F1 and the confusion matrix."""

from torch import Tensor


def confusion_matrix(truth: Tensor, predicted: Tensor, num_classes: int) -> Tensor:
    """Counts examples by class and prediction.

    Args:
        truth: (N,) int64.
        predicted: (N,) int64.
        num_classes: C.

    Returns:
        (C, C) int64, rows are classes and columns predictions.
    """
    counts = (truth * num_classes + predicted).bincount(minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


def macro_f1(confusion: Tensor) -> float:
    """The mean over classes of F1, the harmonic mean of precision and recall, as scikit-learn computes it.

    Classes that neither occur nor are predicted are left out.
    """
    right, occurrences = confusion.diag(), confusion.sum(1) + confusion.sum(0)
    used = occurrences > 0
    return (2 * right[used] / occurrences[used]).double().mean().item()
