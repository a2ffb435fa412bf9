"""Checks that a method learns: a short training run must improve the frozen encoder over its random weights.

Images: nearest neighbours on scikit-learn's digits; for a convolutional network with one label per class (mean over
random choices of the labels), for a ViT, whose random weights are worse, with all labels. Text: the documentation of
Python's standard library. A method that predicts tokens must beat a predictor of token frequencies; for one that
predicts features of tokens, or which tokens are replaced, a linear probe must do so; any other must match a piece of a
document with the piece that follows it. No task needs a network connection, and random weights are far from optimal.
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
from ssl_zoo.conformance.subjects import LARGE_NUMBER, backbone_kind, compose_config, shrink_config
from ssl_zoo.evaluators.base import EvalContext, frozen, same_rng
from ssl_zoo.evaluators.few_labels import sample_labels
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import fit_probe, standardize_features
from ssl_zoo.evaluators.mask import Mask, PredictsTokens, choose_masked
from ssl_zoo.learner import Learner
from ssl_zoo.method import Batch, Method

NUM_LABEL_SAMPLES = 20
"""Random choices of the labels over which accuracies are averaged."""
PIECE_LENGTH = 32
"""Tokens per piece in `next_piece_accuracy`."""
NUM_PROBE_ROWS = 1024
"""Rows of text to which a linear probe is fitted."""
MASK_RATIO = 0.15
"""Share of the tokens that are masked or replaced for a linear probe."""

SMALL: dict[str, dict[str, Any]] = {
    "conv": {"_target_": "ssl_zoo.conformance.subjects.conv_net", "in_chans": 1, "widths": [32, 64, 128]},
    "vit": {"patch_size": 2, "depth": 2, "embed_dim": 64, "num_heads": 2},
    "text": {"depth": 2, "embed_dim": 64, "num_heads": 2},
}
"""Networks that train in seconds on one core: conv replaces the method's network, the others override its settings."""
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
    """Budget and target of a trial.

    Attributes:
        margin: by how much the score of the trained encoder must exceed that of random weights.
        steps: number of optimizer steps.
        batch_size: examples per step.
        lr: peak learning rate.
        overrides: further settings, as on the command line.
    """

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
"""Default budget for each kind of backbone, some seconds on one core."""


class Trial(NamedTuple):
    """Scores of an encoder before and after training; they are at most 1."""

    task: str
    before: float
    after: float
    seconds: float


def backbone_kind_of(name: str) -> str:
    """The kind of backbone in the configuration of the method `name`."""
    return backbone_kind(compose_config(name).backbone)


def run_trial(name: str, seed: int, budget: LearningBudget) -> Trial:
    """Trains the method `name` of conf/method as `python run.py` would, with small networks."""
    default = compose_config(name)
    captions = "text_backbone" in default.method
    data_overrides = TEXT if backbone_kind(default.backbone) == "text" else CAPTIONS if captions else IMAGE
    cfg = compose_config(name, *data_overrides, *budget.overrides)
    data, backbone = _build_parts(cfg, seed, budget)
    heads = shrink_config(OmegaConf.to_container(cfg.method, resolve=True), LARGE_NUMBER, {})
    return train_briefly(instantiate(heads, backbone=backbone, _convert_="all"), data, cfg, seed, budget)


def run_class_trial(path: str, arguments: Mapping[str, Any], kind: str, seed: int, budget: LearningBudget) -> Trial:
    """Trains the class `path` (package.module.Class) on a small backbone of the given kind."""
    min_views = instantiate({"_target_": "hydra.utils.get_class", "path": path}).min_views
    image = (*IMAGE, "views=digits", f"views.copies=[{min_views}]")
    data_overrides = (*TEXT, "views=windows") if kind == "text" else image
    cfg = compose_config("simclr", *data_overrides, *(("backbone=vit_tiny",) if kind == "vit" else ()))
    data, backbone = _build_parts(cfg, seed, budget)
    method = instantiate({"_target_": path, **arguments}, backbone=backbone, _convert_="all")
    return train_briefly(method, data, cfg, seed, budget)


def _build_parts(cfg: DictConfig, seed: int, budget: LearningBudget) -> tuple[Any, nn.Module]:
    """Builds the data of `cfg`, and a small backbone of the kind in `cfg` with the weights of this seed."""
    OmegaConf.set_struct(cfg, False)
    cfg.seed = seed
    cfg.data.batch_size = budget.batch_size
    data = build_data(cfg)
    torch.manual_seed(seed)
    if backbone_kind(cfg.backbone) == "conv":
        return data, instantiate(SMALL["conv"], _convert_="all")
    # In `cfg`, because the settings of a decoder may refer to those of the backbone.
    cfg.merge_with({"backbone": SMALL[backbone_kind(cfg.backbone)]})
    return data, instantiate(cfg.backbone, _convert_="all")


def learning_finding(name: str, trials: Sequence[Trial], budget: LearningBudget) -> Finding:
    """A finding that fails unless every trial gains the margin; `seen` is the minimum gain, `tolerance` the margin."""
    gain = min(trial.after - trial.before for trial in trials)
    failure = f"the encoder gains {gain:.3f} over random weights, and the margin is {budget.margin}"
    return Finding(f"learns: {trials[0].task}", name, "" if gain >= budget.margin else failure, gain, budget.margin)


def train_briefly(method: Method, data: Any, cfg: DictConfig, seed: int, budget: LearningBudget) -> Trial:
    """Trains for the budget with the Learner, as a run does, and scores the encoder before and after."""
    task, score = select_task(method, data)
    before, start_time = score(), time.perf_counter()
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
    return Trial(task, before, score(), time.perf_counter() - start_time)


def select_task(method: Method, data: Any) -> tuple[str, Callable[[], float]]:
    """Selects the task on which the encoder is evaluated; returns its name and a function that computes the score."""
    scalars = _scalar_names(method, data) if data.facts["modality"] == "text" else set()
    if "replaced" in scalars:
        return "probed replaced tokens", lambda: probe_replaced_tokens(method, data)
    if isinstance(method, PredictsTokens):
        return "masked tokens", lambda: masked_token_score(EvalContext(method, data, "periodic"))
    if "perplexity" in scalars:
        return "next tokens", lambda: next_token_score(method, data)
    if data.facts["modality"] == "text" and _has_input_mask_token(method):
        return "probed masked tokens", lambda: probe_masked_tokens(method, data)
    if data.facts["modality"] == "text":
        return "next piece", lambda: next_piece_accuracy(method, data)
    labels = None if isinstance(method.backbone, VisionTransformer) else 1
    name = f"neighbours, {labels or 'all'} labels"
    # A new context for each score, because a context caches features.
    return name, lambda: neighbour_accuracy(EvalContext(method, data, "periodic"), labels)


def neighbour_accuracy(context: EvalContext, labels: int | None) -> float:
    """Accuracy of the nearest neighbour by centred cosine on the test split.

    Args:
        context: gives the features of both splits.
        labels: number of training examples per class; None for all.
    """
    (x, y, _), (queries, truth, _) = context.train, context.test
    knn, mean = KNN([1], temperature=0.07, center=False), x.mean(dim=0)
    choices = [torch.arange(len(y))]
    if labels is not None:
        choices = [sample_labels(y, labels, number) for number in range(NUM_LABEL_SAMPLES)]
    scores = [knn.accuracies(x[rows] - mean, y[rows], queries - mean, truth)[0] for rows in choices]
    return sum(scores) / len(scores)


def masked_token_score(context: EvalContext) -> float:
    """1 - cross-entropy of masked tokens / cross-entropy of a predictor of token frequencies, at least 0."""
    found = Mask(mask_ratio=0.15, max_rows=256, batch_size=64)(context)
    return max(0.0, 1 - found["mask/loss"] / math.log(found["mask/unigram_perplexity"]))


def _has_input_mask_token(method: Any) -> bool:
    """Whether the method replaces masked tokens by a learned embedding in the input of its encoder."""
    token = getattr(method, "mask_token", None)
    return isinstance(token, Tensor) and token.shape == method.backbone.embedding.weight.shape[1:]


def probe_masked_tokens(method: Any, data: Any) -> float:
    """`probe_score` of masked tokens, from the frozen encoder's features at the method's `mask_token`."""

    def features_and_tokens(rows: Tensor) -> tuple[Tensor, Tensor]:
        masked = choose_masked(rows, data.facts["num_special"], MASK_RATIO)
        x = []
        with frozen(method):
            for ids, where in zip(rows.split(64), masked.split(64), strict=True):
                embeddings = torch.where(where.unsqueeze(-1), method.mask_token, embed(method.encoder, ids))
                x.append(encode(method.encoder, ids, embeddings=embeddings).tokens[where])
        return torch.cat(x).float(), rows[masked]

    return probe_score(*features_and_tokens(_training_rows(data)), *features_and_tokens(data.heldout_rows()[:256]))


def probe_replaced_tokens(method: Any, data: Any) -> float:
    """`probe_score` of which tokens are replaced, from the frozen encoder's features of all ordinary tokens.

    A share of the ordinary tokens is shuffled, so that replaced tokens are recognisable only by their context.
    """

    def features_and_replaced(rows: Tensor) -> tuple[Tensor, Tensor]:
        chosen = choose_masked(rows, data.facts["num_special"], MASK_RATIO)
        order = torch.randperm(int(chosen.sum()), generator=torch.Generator().manual_seed(0))
        ids = rows.masked_scatter(chosen, rows[chosen][order])
        ordinary = ids >= data.facts["num_special"]
        x = []
        with frozen(method):
            for chunk, where in zip(ids.split(64), ordinary.split(64), strict=True):
                x.append(encode(method.encoder, chunk).tokens[where])
        return torch.cat(x).float(), (ids != rows)[ordinary].long()

    rows = _training_rows(data)[: NUM_PROBE_ROWS // 4]  # each token of a row is an example
    return probe_score(*features_and_replaced(rows), *features_and_replaced(data.heldout_rows()[:256]))


def probe_score(x: Tensor, y: Tensor, queries: Tensor, truth: Tensor) -> float:
    """1 - cross-entropy of a linear probe / cross-entropy of a predictor of class frequencies; may be negative.

    Args:
        x: (N, D) features to fit.
        y: (N,) int64, their classes.
        queries: (M, D) features to evaluate.
        truth: (M,) int64, their classes; classes that do not occur in y are ignored.
    """
    x, queries = standardize_features(x, queries)
    probe = fit_probe(x, y, l2=1e-3)
    known = torch.isin(truth, probe.classes)
    targets = torch.searchsorted(probe.classes, truth[known])
    loss = F.cross_entropy(F.linear(queries[known], probe.weight, probe.bias), targets)
    frequencies = y.unique(return_counts=True)[1] / len(y)
    return 1 - (loss / -frequencies.log()[targets].mean()).item()


def _training_rows(data: Any) -> Tensor:
    """(NUM_PROBE_ROWS, L) int64, token ids of the training split."""
    return torch.cat([rows.rows for rows in islice(data.train_rows_from(0), NUM_PROBE_ROWS // data.batch_size)])


def _rows(data: Any) -> Batch:
    """Held-out text as a batch with one view."""
    rows = data.heldout_rows()[:128]
    return Batch([rows], torch.full((len(rows),), -1), torch.arange(len(rows)))


def _scalar_names(method: Method, data: Any) -> set[str]:
    """The names of the scalars that the method computes for a batch of text."""
    with same_rng(), frozen(method):
        views = _rows(data).views * method.min_views
        return set(method(_rows(data)._replace(views=views), 0.0))


def next_token_score(method: Method, data: Any) -> float:
    """`masked_token_score` for a method that predicts all tokens, from its perplexity on held-out rows."""
    with same_rng(), frozen(method):
        torch.manual_seed(0)
        loss = method(_rows(data), 0.0)["perplexity"].log().item()
    return max(0.0, 1 - loss / math.log(data.facts["unigram_perplexity"]))


def next_piece_accuracy(method: Method, data: Any) -> float:
    """Share of held-out documents whose first piece has its own second piece as nearest by centred cosine."""
    tokens = data.tokens
    documents = np.arange(tokens.splits["test"].start, tokens.splits["test"].stop)
    documents = documents[tokens.lengths(documents) >= 2 * PIECE_LENGTH]
    rows = torch.from_numpy(tokens.padded(documents, 2 * PIECE_LENGTH, data.facts["pad_id"]))
    with frozen(method):
        first, second = (F.normalize(x - x.mean(dim=0)) for x in map(method.encoder, rows.split(PIECE_LENGTH, dim=1)))
    nearest = (first @ second.T).argmax(dim=1)
    return (nearest == torch.arange(len(rows))).double().mean().item()
