"""The contract of a data module, in two protocols: what evaluators use, and the whole of what a run uses.

`ImageData`, `TextData` and `PairData` satisfy both. Your own data module needs no base class besides Lightning's.
"""

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch

from ssl_zoo.method import Batch
from ssl_zoo.views import Views


@runtime_checkable
class EvalData(Protocol):
    """What evaluators use of a data module."""

    facts: dict[str, Any]
    """What the data turned out to be. Evaluators read modality, has_labels, num_classes, class_names and num_test; for
    images also image_size, in_chans, mean and std; for text also mask_id and num_special."""
    views: Views
    """The views of training."""

    def eval_batches(self, split: str, batch_size: int) -> Iterable[Batch]:
        """Every labelled example of a split once, or every example where the data has no labels.

        Args:
            split: "train" or "test".
            batch_size: maximum number of examples per batch.

        Returns:
            Batches with the views of evaluation, equal in every pass: (B, C, H, W) float32, or one (B, L) int64.
        """


@runtime_checkable
class DataModule(EvalData, Protocol):
    """A Lightning data module that a run can train on.

    A run calls `prepare_data`, `setup` and `attach`, in this order, before anything else except `expected_facts`. Where
    there is text, `facts` has a tokenizer_hash and the module a `tokenizer`, a `data.text.tokenizer.TextTokenizer`.
    """

    batch_size: int
    """Examples per global batch, over all processes."""
    start_batch: int
    """Global batches consumed before; the learner sets it when a run resumes, and `train_dataloader` starts there."""

    @property
    def expected_facts(self) -> dict[str, Any]:
        """Facts that follow from the settings alone, for the dry run; counts are placeholders."""

    @property
    def num_train(self) -> int:
        """Examples per epoch, labelled or not; known after `attach`."""

    @property
    def rows_have_labels(self) -> bool:
        """Whether every training example has a label and several classes occur, as supervised methods need."""

    def train_on_labelled(self) -> None:
        """Restricts training to the examples with a label; called after `attach`, where labels are left out on request.

        Raises:
            ValueError: when an epoch would have no full batch.
        """

    @property
    def content(self) -> str:
        """Identifies the content of the source: equal for a copy in another place."""

    def prepare_data(self) -> None:
        """Fetches the data and fills the cache.

        Raises:
            ValueError: for data that is missing, unreadable or does not match the settings.
        """

    def setup(self, stage: str | None = None) -> None:
        """Opens the cache and fills `facts`.

        Raises:
            ValueError: as `prepare_data`.
        """

    def attach(self, views: Views, evaluation: Views) -> None:
        """Sets the views, which the configuration chooses once `facts` are known.

        Args:
            views: those of training.
            evaluation: those of evaluation; optional for text, which is evaluated as it is.

        Raises:
            ValueError: for views that this data cannot be used with.
        """

    def train_dataloader(self) -> Iterable[Any]:
        """This process's share of every global batch from `start_batch` on, without end.

        Every tensor in a batch has one row per example.
        """

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves a loaded batch to the device."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Batch:
        """Computes the views of a loaded batch on the device that it has been moved to."""
