"""Attentive probe: a learned query attends to the tokens of a frozen encoder, and a linear layer classifies the result.

For encoders whose pooled vector was never trained, as those of masked prediction. Chen et al., "Context Autoencoder for
Self-Supervised Representation Learning", IJCV 2024, https://arxiv.org/abs/2202.03026, introduced it; El-Nouby et al.,
"AIM", ICML 2024, https://arxiv.org/abs/2401.08541, and Bardes et al., "V-JEPA", TMLR 2024,
https://arxiv.org/abs/2404.08471, evaluate by it. They augment the images and train for longer; here tokens are
extracted once, and the rate is chosen on a validation split of the training examples. Letters: B examples, N tokens, D
width, C classes.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_zoo.backbones.token_features import token_features
from ssl_zoo.data.order import epoch_order
from ssl_zoo.evaluators.base import EvalContext, frozen, warn_once
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.evaluators.validation import check_validation, validation_split


class AttentiveHead(nn.Module):
    """Cross-attention of one query to normalised tokens, then a linear layer: (B, N, D) -> (B, C).

    Args:
        width: D.
        heads: of the attention, at most; their number is its greatest common divisor with D.
        num_classes: C.
    """

    def __init__(self, width: int, heads: int, num_classes: int):
        super().__init__()
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, math.gcd(width, heads), batch_first=True)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Logits of tokens (B, N, D), of which only those that are `valid` (B, N) bool are attended to."""
        tokens = self.norm(tokens)
        query = self.query.expand(len(tokens), -1, -1)
        pooled, _ = self.attention(query, tokens, tokens, key_padding_mask=~valid, need_weights=False)
        logits: Tensor = self.classifier(pooled.squeeze(1))
        return logits


class Attentive:
    """Reports `attentive/top1`, accuracy on the test split, and `attentive/lr`, the rate.

    The rate is chosen on a validation split of the training examples. It takes minutes, so periodic evaluations leave
    it out.
    """

    needs_labels = True

    def __init__(
        self,
        lr: list[float],
        epochs: int,
        batch_size: int,
        weight_decay: float,
        heads: int,
        max_train: int,
        validation: float,
    ):
        """Keeps the settings.

        Args:
            lr: peak rates of AdamW to choose from; each falls to 0 as a half cosine.
            epochs: passes over the tokens, for each rate and for the final fit.
            batch_size: examples per step.
            weight_decay: of AdamW.
            heads: see `AttentiveHead`.
            max_train: number of training examples at most, a random sample; N * D * 4 bytes of memory each.
            validation: share of them that is held out to choose.

        Raises:
            ValueError: for settings outside their range.
        """
        key = "evaluators.attentive"
        if not lr or min(lr) <= 0 or len(set(lr)) < len(lr):
            raise ValueError(f"{key}.lr={lr} must be one or more different positive rates, [1e-4, 1e-3] for example")
        for name, value, least in (
            ("epochs", epochs, 1), ("batch_size", batch_size, 1), ("heads", heads, 1), ("max_train", max_train, 2),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{key}.{name}={value}: give at least {least}")
        if weight_decay < 0:
            raise ValueError(f"{key}.weight_decay={weight_decay}: give 0 or more")
        check_validation(key, validation)
        self.lr = sorted(lr)
        self.epochs = epochs
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.heads = heads
        self.max_train = max_train
        self.validation = validation

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy and rate.

        Raises:
            ValueError: when the encoder gives one vector per example only.
        """
        if context.phase == "periodic":
            return {}
        tokens, valid, y = self._tokens(context)
        classes, target = y.unique(return_inverse=True)
        rest, held = validation_split(len(y), self.validation)
        scores = []
        for rate in self.lr:
            head = self.fit(tokens[rest], valid[rest], target[rest], rate, context.device)
            with frozen(head):
                parts = zip(tokens[held].split(self.batch_size), valid[held].split(self.batch_size), strict=True)
                logits = [head(t.to(context.device), v.to(context.device)).cpu() for t, v in parts]
            scores.append((torch.cat(logits).argmax(dim=1) == target[held]).double().mean().item())
        rate = self.lr[scores.index(max(scores))]
        if rate in (self.lr[0], self.lr[-1]) and len(self.lr) > 1:
            warn_once(f"attentive: the chosen rate, {rate:g}, is at an end of evaluators.attentive.lr: extend the list")
        head = self.fit(tokens, valid, target, rate, context.device)
        encoder = context.method.encoder

        def classify(view: Tensor) -> Tensor:
            features, _, known = token_features(encoder, view)
            return head(features.float(), known)

        with frozen(encoder), frozen(head), context.precision():
            test = context.collect("test", classify)
        right = classes[test.x.argmax(dim=1)] == test.y
        return {"attentive/top1": Proportion.of(right), "attentive/lr": rate}

    def _tokens(self, context: EvalContext) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens (n, N, D) float32 of at most `max_train` training examples, which of them are valid, and labels."""
        encoder = context.method.encoder
        found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        with frozen(encoder), context.precision():
            for batch in context.sample("train", self.max_train):
                try:
                    features, _, valid = token_features(encoder, batch.views[0].to(context.device))
                except ValueError as error:
                    raise ValueError(f"evaluators=[attentive] needs the tokens of an encoder: {error}") from error
                found.append((features.float().cpu(), valid.cpu(), batch.labels.cpu(), batch.indices.cpu()))
        longest = max(features.shape[1] for features, *_ in found)  # texts come in batches of similar length
        tokens = torch.cat([F.pad(features, (0, 0, 0, longest - features.shape[1])) for features, *_ in found])
        known = torch.cat([F.pad(valid, (0, longest - valid.shape[1])) for _, valid, *_ in found])
        in_order = torch.cat([indices for *_, indices in found]).argsort()
        return tokens[in_order], known[in_order], torch.cat([labels for *_, labels, _ in found])[in_order]

    def fit(self, tokens: Tensor, valid: Tensor, target: Tensor, rate: float, device: torch.device) -> AttentiveHead:
        """Trains a head by AdamW; equal calls give an equal result.

        Args:
            tokens: (n, N, D) float32.
            valid: (n, N) bool.
            target: (n,) int64, from 0.
            rate: peak rate.
            device: to train on; the tokens may lie elsewhere.
        """
        torch.manual_seed(0)  # evaluators run under `same_rng`
        head = AttentiveHead(tokens.shape[2], self.heads, int(target.max()) + 1).to(device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=self.weight_decay)
        total = self.epochs * math.ceil(len(target) / self.batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
        for epoch in range(self.epochs):
            for rows in torch.from_numpy(epoch_order(len(target), 0, epoch)).split(self.batch_size):
                logits = head(tokens[rows].to(device), valid[rows].to(device))
                optimizer.zero_grad()
                F.cross_entropy(logits, target[rows].to(device)).backward()
                optimizer.step()
                schedule.step()
        return head
