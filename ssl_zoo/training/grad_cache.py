"""`trainer.grad_cache=<rows>`: loss and gradient of the whole batch, with the activations of so many rows in memory.

Gao, Zhang, Han, Callan, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", RepL4NLP 2021,
https://arxiv.org/abs/2101.06983, Section 3. The backbone maps the batch to embeddings in chunks and forgets all
activations; the loss of all embeddings gives their gradients, the paper's cache; then each chunk is computed again,
with the random numbers of the first time, and its gradient is added. Heads and loss see the whole batch.
"""

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ssl_zoo.learner import Learner
from ssl_zoo.method import Batch, Method

log = logging.getLogger(__name__)

ROUNDING = 1e-6
"""Gradients that differ by a larger share of the largest one are not equal up to rounding."""


def backbones_of(method: Method) -> list[nn.Module]:
    """The backbones of a method, children whose names end in "backbone", and the EMA copies of these."""
    own = [child for name, child in method.named_children() if name.endswith("backbone")]
    return [part for part in method.modules() if any(part is one or _is_copy(part, one) for one in own)]


def _is_copy(part: nn.Module, network: nn.Module) -> bool:
    return type(part) is type(network) and part.state_dict().keys() == network.state_dict().keys()


class ReplacedForward:
    """A context within which the backbones of a method compute something else; it may be entered again and again.

    Args:
        method: the method.
        replacement: takes a backbone and returns what is called instead of its `forward`.
    """

    def __init__(self, method: Method, replacement: Callable[[Any], Callable[[Tensor], Tensor]]):
        # Made once: compiled code that was given other functions in each step would be compiled anew.
        self.replaced = [(network, replacement(network)) for network in backbones_of(method)]

    def __enter__(self) -> None:
        for network, forward in self.replaced:
            network.forward = forward  # of this object only

    def __exit__(self, *error: object) -> None:
        for network, _ in self.replaced:
            del network.forward  # uncovers that of its class


def in_chunks(method: Method, rows: int) -> ReplacedForward:
    """Within this context each backbone of `method` computes `rows` rows at a time; backward may run after its end."""
    return ReplacedForward(method, lambda network: partial(_forward_in_chunks, network.forward, rows))


def _forward_in_chunks(forward: Callable[[Tensor], Tensor], rows: int, x: Tensor) -> Tensor:
    if not torch.is_grad_enabled():  # an EMA network
        return torch.cat([forward(chunk) for chunk in torch.split(x, rows)])
    return torch.cat([checkpoint(forward, chunk, use_reentrant=False) for chunk in torch.split(x, rows)])


class GradCache(Callback):
    """Computes the backbones of each training batch in chunks.

    Args:
        rows: images or texts that a backbone computes at a time, on each process. Views count one by one.
    """

    def __init__(self, rows: int):
        self.rows = rows
        self.chunks: ReplacedForward | None = None

    def on_train_batch_start(self, trainer: Trainer, learner: LightningModule, *_: Any) -> None:
        """Begins to compute in chunks."""
        assert isinstance(learner, Learner)
        self.chunks = self.chunks or in_chunks(learner.method, self.rows)
        self.chunks.__enter__()

    def on_before_backward(self, *_: Any) -> None:
        """Ends it: evaluation between two steps finds the backbones as they were."""
        assert self.chunks is not None
        self.chunks.__exit__()


# ------------------------------------------------------------------------------------------------ checks at start-up


def check_networks(method: Method, rows: int) -> None:
    """Raises ValueError for a backbone with BatchNorm, by which the embedding of a row depends on its chunk."""
    if any(isinstance(part, _BatchNorm) for network in backbones_of(method) for part in network.modules()):
        raise ValueError(
            f"trainer.grad_cache={rows}: the backbone has BatchNorm, whose statistics would be those of a chunk, so "
            "that loss and gradient would not be those of the batch. Choose a backbone without it, such as "
            "backbone=vit_tiny, backbone=convnext_tiny or backbone=resnet18 +backbone.norm_layer=groupnorm; or save "
            "memory by backbone.grad_checkpointing=true"
        )


def check_loss(method: Method, batch: Batch, rows: int) -> None:
    """Raises ValueError if the loss depends on a backbone by more than its output, the embeddings, which are cached.

    Args:
        method: it computes the loss of a copy of it, with random embeddings in place of the backbone's.
        batch: a few examples.
        rows: the value of `trainer.grad_cache`.
    """
    if not _reads_embeddings_only(method, batch):
        raise ValueError(
            f"trainer.grad_cache={rows}: the loss of {type(method).__name__} is computed from tokens inside the "
            "backbone and not from one embedding per example, so there is no embedding whose gradient could be kept. "
            "Leave it out; backbone.grad_checkpointing=true saves memory with every method"
        )


def _reads_embeddings_only(method: Method, batch: Batch) -> bool:
    """Whether the loss has no gradient in the weights of the backbones when their outputs are replaced by constants."""
    copied = copy.deepcopy(method).train()
    calls = []

    def embed(network: Any, x: Tensor) -> Tensor:
        calls.append(network)
        return torch.randn(len(x), network.num_features, device=x.device, requires_grad=True)

    with torch.random.fork_rng(), ReplacedForward(copied, lambda network: partial(embed, network)):
        loss = copied(batch, 0.0)["loss"]
    weights = [weight for network in backbones_of(copied) for weight in network.parameters() if weight.requires_grad]
    reached = torch.autograd.grad(loss, weights, allow_unused=True)
    return bool(calls) and all(gradient is None for gradient in reached)


def compares_examples(method: Method, batch: Batch) -> bool:
    """Whether the gradient of an example's embeddings depends on the embeddings of other examples of the batch.

    Measured with random embeddings in place of the backbones' in evaluation mode, so with the running statistics of
    BatchNorm: their first rows are the same twice, the others are not. False for a method that `check_loss` refuses.
    """
    if not _reads_embeddings_only(method, batch):
        return False
    copied, count = copy.deepcopy(method).eval(), len(batch.labels)
    gradients = []
    for others in (1, 2):
        embeddings: list[Tensor] = []

        def embed(network: Any, x: Tensor, others: int = others, embeddings: list[Tensor] = embeddings) -> Tensor:
            shape, number = (len(x), network.num_features), len(embeddings)
            same, other = (
                torch.randn(shape, generator=torch.Generator().manual_seed(3 * number + i)) for i in (0, others)
            )
            is_first = torch.arange(len(x)) % count < count // 2  # views of one shape may share a call
            embeddings.append(torch.where(is_first[:, None], same, other).to(x.device).requires_grad_())
            return embeddings[-1]

        with torch.random.fork_rng(), ReplacedForward(copied, lambda network: partial(embed, network)):
            torch.manual_seed(0)
            loss = copied(batch, 0.0)["loss"]
        reached = torch.autograd.grad(loss, embeddings, allow_unused=True)  # None for those of an EMA network
        gradients.append([gradient for gradient in reached if gradient is not None])
    firsts = [[g[torch.arange(len(g)) % count < count // 2] for g in found] for found in gradients]
    largest = max(float(g.abs().max()) for g in firsts[0])
    return any(float((a - b).abs().max()) > ROUNDING * largest for a, b in zip(*firsts, strict=True))


def warn_of_accumulation(method: Method, batch: Batch, batches: int, batch_size: int) -> None:
    """Logs a warning where accumulating over `batches` batches of `batch_size` gives another loss than one large one.

    Args:
        method: the method.
        batch: a few of its examples.
        batches: the value of `trainer.accumulate_grad_batches`.
        batch_size: examples in each of them.
    """
    if batches > 1 and compares_examples(method, batch):
        log.warning(
            "warning: trainer.accumulate_grad_batches=%d: the loss of %s compares the examples of a batch with each "
            "other, and accumulation compares only those of the same %d. To compare all %d: data.batch_size=%d "
            "trainer.grad_cache=%d trainer.accumulate_grad_batches=1",
            batches, type(method).__name__, batch_size, batches * batch_size, batches * batch_size, batch_size,
        )  # fmt: skip
