"""Whether a method learns: a run of seconds on a small real task, the frozen encoder against its own random weights.

Images: scikit-learn's digits and nearest neighbours, on a convolutional network from one label a class (mean over draws
of the labels), on a ViT, whose random weights say less, from all labels. Text: the documentation in Python's standard
library in small tokens; a method that predicts tokens is to beat their mere frequency; one that predicts their vectors,
or which of them are replaced, to let a linear probe do so; another to find for a piece of a document the one that
followed it. No task needs a network, and each leaves much room above random weights.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_zoo.backbones.tokens import embed, encode
from ssl_zoo.build import build_data, build_optimizer
from ssl_zoo.conformance.checks import Finding
from ssl_zoo.conformance.subjects import LARGE, composed, kind_of, shrunk
from ssl_zoo.evaluators.base import EvalContext, frozen, same_rng
from ssl_zoo.evaluators.few_labels import sample_labels
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import fit_probe, standardize_features
from ssl_zoo.evaluators.mask import Mask, PredictsTokens, choose_masked
from ssl_zoo.learner import Learner
from ssl_zoo.method import Batch, Method

DRAWS, PIECE, ROWS, SHARE = 20, 32, 1024, 0.15

SMALL: dict[str, dict[str, Any]] = {
    "conv": {"_target_": "ssl_zoo.conformance.subjects.conv_net", "in_chans": 1, "widths": [32, 64, 128]},
    "vit": {"patch_size": 2, "depth": 2, "embed_dim": 64, "num_heads": 2},
    "text": {"depth": 2, "embed_dim": 64, "num_heads": 2},
}
"""Networks narrow enough for seconds on one core: conv replaces the method's own, the others change it."""
IMAGE = ("data=digits",)
CAPTIONS = (
    "data=cifar10_captions",
    "data.path=sklearn:digits",
    "data.image_column=null",
    "data.label_column=null",
    "data.image_size=8",
    "data.in_chans=1",
    "data.mean=[0.305]",
    "data.std=[0.376]",
    "backbone=resnet10t",
    "backbone@method.text_backbone=text_tiny",
)
TEXT = ("data=stdlib_docs", "data.tokenizer.vocab_size=300", "data.row_length=64", "data.max_length=128")


class LearningBudget(NamedTuple):
    """A trial. steps of batch_size examples at the peak rate lr; overrides: as on the command line; margin: how far the
    trained encoder must be above random weights, as a share."""

    margin: float
    steps: int
    batch_size: int
    lr: float
    overrides: tuple[str, ...] = ()


LEARNING_BUDGETS = {
    "conv": LearningBudget(0.05, 150, 64, 2e-3),
    "vit": LearningBudget(0.03, 150, 128, 5e-3),
    "text": LearningBudget(0.02, 150, 32, 5e-3),
}
"""Seconds on one core for each kind of backbone; a test may give a method its own."""


class Trial(NamedTuple):
    """Scores are shares in [0, 1]."""

    task: str
    before: float
    after: float
    seconds: float


def kind(name: str) -> str:
    """The kind of backbone that the configuration of the method `name` asks for."""
    return kind_of(composed(name).backbone)


def trial(name: str, seed: int, budget: LearningBudget) -> Trial:
    """Trains the method `name` of conf/method as `python run.py` would, with small networks."""
    plain = composed(name)
    captions = "text_backbone" in plain.method
    where = TEXT if kind_of(plain.backbone) == "text" else CAPTIONS if captions else IMAGE
    cfg = composed(name, *where, *budget.overrides)
    data, backbone = _parts(cfg, seed, budget)
    heads = shrunk(OmegaConf.to_container(cfg.method, resolve=True), LARGE, {})
    return train_briefly(instantiate(heads, backbone=backbone, _convert_="all"), data, cfg, seed, budget)


def trial_of_class(path: str, arguments: Mapping[str, Any], kind: str, seed: int, budget: LearningBudget) -> Trial:
    """Trains the class `package.module.Class` on a small backbone of a kind."""
    needed = instantiate({"_target_": "hydra.utils.get_class", "path": path}).min_views
    where = (*TEXT, "views=windows") if kind == "text" else (*IMAGE, "views=digits", f"views.copies=[{needed}]")
    cfg = composed("simclr", *where, *(("backbone=vit_tiny",) if kind == "vit" else ()))
    data, backbone = _parts(cfg, seed, budget)
    method = instantiate({"_target_": path, **arguments}, backbone=backbone, _convert_="all")
    return train_briefly(method, data, cfg, seed, budget)


def _parts(cfg: DictConfig, seed: int, budget: LearningBudget) -> tuple[Any, nn.Module]:
    """The data, and a small backbone of the kind that `cfg` asks for with the weights of this seed."""
    OmegaConf.set_struct(cfg, False)
    cfg.seed = seed
    cfg.data.batch_size = budget.batch_size
    data = build_data(cfg)
    torch.manual_seed(seed)
    if kind_of(cfg.backbone) == "conv":
        return data, instantiate(SMALL["conv"], _convert_="all")
    cfg.merge_with({"backbone": SMALL[kind_of(cfg.backbone)]})  # a decoder may be as wide as the backbone
    return data, instantiate(cfg.backbone, _convert_="all")


def finding(name: str, trials: Sequence[Trial], budget: LearningBudget) -> Finding:
    """Fails unless every trial gained the margin; `seen` is the smallest gain, `tolerance` the margin."""
    gain = min(trial.after - trial.before for trial in trials)
    failure = f"the encoder gains {gain:.3f} over random weights, and the margin is {budget.margin}"
    return Finding(f"learns: {trials[0].task}", name, "" if gain >= budget.margin else failure, gain, budget.margin)


def train_briefly(method: Method, data: Any, cfg: DictConfig, seed: int, budget: LearningBudget) -> Trial:
    """Trains for the budget with the Learner, as a run does, and scores the encoder before and after."""
    task, score = judge(method, data)
    before, started = score(), time.perf_counter()
    cfg.optimizer.lr = budget.lr
    learner = Learner(method, build_optimizer(cfg), instantiate(cfg.schedule), seed, total_steps=budget.steps)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=budget.steps,
        max_epochs=-1,
        logger=False,
        log_every_n_steps=10**9,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(learner, datamodule=data)
    return Trial(task, before, score(), time.perf_counter() - started)


def judge(method: Method, data: Any) -> tuple[str, Callable[[], float]]:
    """The name of the task that tells how good the encoder is, and the score on it."""
    told = _told(method, data) if data.facts["modality"] == "text" else set()
    if "replaced" in told:
        return "probed replaced tokens", lambda: probed_replaced_tokens(method, data)
    if isinstance(method, PredictsTokens):
        return "hidden tokens", lambda: hidden_tokens(EvalContext(method, data, "periodic"))
    if "perplexity" in told:
        return "next tokens", lambda: next_tokens(method, data)
    if data.facts["modality"] == "text" and _shows_mask_token(method):
        return "probed hidden tokens", lambda: probed_hidden_tokens(method, data)
    if data.facts["modality"] == "text":
        return "next piece", lambda: next_piece(method, data)
    labels = None if isinstance(method.backbone, VisionTransformer) else 1
    return f"neighbours, {labels or 'all'} labels", lambda: neighbours(EvalContext(method, data, "periodic"), labels)


def neighbours(context: EvalContext, labels: int | None) -> float:
    """Accuracy on the test part of the nearest training example by centred cosine, of `labels` a class or all."""
    (x, y, _), (queries, truth, _) = context.train, context.test
    nearest, mean = KNN([1], temperature=0.07, center=False), x.mean(dim=0)
    chosen = [torch.arange(len(y))] if labels is None else [sample_labels(y, labels, number) for number in range(DRAWS)]
    scores = [nearest.accuracies(x[rows] - mean, y[rows], queries - mean, truth)[0] for rows in chosen]
    return sum(scores) / len(scores)


def hidden_tokens(context: EvalContext) -> float:
    """Share saved of the nats that hidden tokens cost one who knows how frequent each is; 0 for one who knows less."""
    found = Mask(mask_ratio=0.15, max_rows=256, batch_size=64)(context)
    return max(0.0, 1 - found["mask/loss"] / math.log(found["mask/unigram_perplexity"]))


def _shows_mask_token(method: Any) -> bool:
    """Whether the method hides tokens from its encoder behind an embedding of its own."""
    token = getattr(method, "mask_token", None)
    return isinstance(token, Tensor) and token.shape == method.backbone.embedding.weight.shape[1:]


def probed_hidden_tokens(method: Any, data: Any) -> float:
    """What a linear probe of the frozen encoder knows of hidden tokens, by its vectors at the places of the method's
    `mask_token`: see `probed`."""

    def at_hidden(rows: Tensor) -> tuple[Tensor, Tensor]:
        hidden = choose_masked(rows, data.facts["num_special"], SHARE)
        x = []
        with frozen(method):
            for ids, where in zip(rows.split(64), hidden.split(64), strict=True):
                shown = torch.where(where.unsqueeze(-1), method.mask_token, embed(method.encoder, ids))
                x.append(encode(method.encoder, ids, embeddings=shown).tokens[where])
        return torch.cat(x).float(), rows[hidden]

    return probed(*at_hidden(_training_rows(data)), *at_hidden(data.heldout_rows()[:256]))


def probed_replaced_tokens(method: Any, data: Any) -> float:
    """What a linear probe of the frozen encoder's tokens knows of which of them stand in the place of another: see
    `probed`. A share of the ordinary tokens are shuffled among themselves, so that only their neighbours tell."""

    def at_ordinary(rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = choose_masked(rows, data.facts["num_special"], SHARE)
        order = torch.randperm(int(chosen.sum()), generator=torch.Generator().manual_seed(0))
        ids = rows.masked_scatter(chosen, rows[chosen][order])
        ordinary = ids >= data.facts["num_special"]
        x = []
        with frozen(method):
            for part, where in zip(ids.split(64), ordinary.split(64), strict=True):
                x.append(encode(method.encoder, part).tokens[where])
        return torch.cat(x).float(), (ids != rows)[ordinary].long()

    return probed(*at_ordinary(_training_rows(data)), *at_ordinary(data.heldout_rows()[:256]))


def probed(x: Tensor, y: Tensor, queries: Tensor, truth: Tensor) -> float:
    """Share saved of the nats that the classes `truth` (M,) cost one who knows how frequent each is, by a linear probe
    of `queries` (M, D), fitted to x (N, D) and y (N,); below 0 if it knows less. Classes that y lacks do not count."""
    x, queries = standardize_features(x, queries)
    probe = fit_probe(x, y, l2=1e-3)
    known = torch.isin(truth, probe.classes)
    targets = torch.searchsorted(probe.classes, truth[known])
    nats = F.cross_entropy(F.linear(queries[known], probe.weight, probe.bias), targets)
    frequencies = y.unique(return_counts=True)[1] / len(y)
    return 1 - (nats / -frequencies.log()[targets].mean()).item()


def _training_rows(data: Any) -> Tensor:
    """(ROWS, L) ids that were trained on."""
    return torch.cat([rows.rows for rows in islice(data.train_rows_from(0), ROWS // data.batch_size)])


def _rows(data: Any) -> Batch:
    """Held-out text as one batch of a view."""
    rows = data.heldout_rows()[:128]
    return Batch([rows], torch.full((len(rows),), -1), torch.arange(len(rows)))


def _told(method: Method, data: Any) -> set[str]:
    """The names of what the method tells of a batch of text."""
    with same_rng(), frozen(method):
        views = _rows(data).views * method.min_views
        return set(method(_rows(data)._replace(views=views), 0.0))


def next_tokens(method: Method, data: Any) -> float:
    """The same share for a method that predicts all tokens, by the perplexity that it tells of held-out rows."""
    with same_rng(), frozen(method):
        torch.manual_seed(0)
        nats = method(_rows(data), 0.0)["perplexity"].log().item()
    return max(0.0, 1 - nats / math.log(data.facts["unigram_perplexity"]))


def next_piece(method: Method, data: Any) -> float:
    """Share of held-out documents whose first PIECE tokens find, by centred cosine, their own next PIECE tokens."""
    tokens = data.tokens
    documents = np.arange(tokens.parts["test"].start, tokens.parts["test"].stop)
    documents = documents[tokens.lengths(documents) >= 2 * PIECE]
    rows = torch.from_numpy(tokens.padded(documents, 2 * PIECE, data.facts["pad_id"]))
    with frozen(method):
        first, second = (F.normalize(x - x.mean(dim=0)) for x in map(method.encoder, rows.split(PIECE, dim=1)))
    found = (first @ second.T).argmax(dim=1)
    return (found == torch.arange(len(rows))).double().mean().item()
