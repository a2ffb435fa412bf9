"""Zero-shot classification: an image is assigned to the class whose name, within a sentence, is most similar to it.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020, Sections 3.1.2 and 3.1.4. Letters: C classes, T templates, L tokens, D width.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_zoo.evaluators.base import EvalContext, frozen
from ssl_zoo.evaluators.proportion import Proportion


@runtime_checkable
class TwoTowers(Protocol):
    """A method that embeds images and texts in one space."""

    def embed_image(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, D), of length 1."""

    def embed_text(self, ids: Tensor) -> Tensor:
        """(B, L) int64 -> (B, D), of length 1."""


@runtime_checkable
class Tokenises(Protocol):
    """Data that has the method's tokenizer."""

    def tokenise(self, texts: Sequence[str]) -> Tensor:
        """Token ids of n texts, (n, L) int64."""


def require_towers(method: object, evaluator: str) -> TwoTowers:
    """Returns `method`, which the named evaluator needs to embed text. Raises ValueError if it does not."""
    if not isinstance(method, TwoTowers):
        raise ValueError(
            f"evaluators=[{evaluator}] needs a method with a text tower, and {type(method).__name__} has none: "
            f"leave {evaluator} out, or choose method=clip or method=siglip"
        )
    return method


class ZeroShot:
    """Reports `zero_shot/top1`, the share of test examples whose nearest class, by cosine, is their own.

    A class is the mean of the normalised embeddings of its name in all templates (Section 3.1.4).
    """

    needs_labels = False  # missing labels raise an error here: the user asked for this evaluator by name
    needs_method = TwoTowers

    def __init__(self, templates: list[str]):
        """Keeps the settings.

        Args:
            templates: sentences with {} for the name of the class.

        Raises:
            ValueError: for no template, or one without {}.
        """
        if not templates or not all("{}" in template for template in templates):
            raise ValueError(
                f"evaluators.zero_shot.templates={templates}: give one or more sentences with {{}} for the class"
            )
        self.templates = templates

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """Accuracy on the test split.

        Raises:
            ValueError: when the method embeds no text, or the data has no class names or no test split.
        """
        method, data = require_towers(context.method, "zero_shot"), context.data
        if not isinstance(data, Tokenises):
            raise ValueError(
                "evaluators=[zero_shot] needs data with captions, which give the tokenizer: leave zero_shot out, "
                "or choose data=captions"
            )
        names = data.facts["class_names"]
        if not names or not data.facts["num_test"]:
            missing = "labelled test split (data.splits.test)" if names else "class names (data.label_column)"

            raise ValueError(f"evaluators=[zero_shot]: this data has no {missing}; give it one or leave zero_shot out")
        prompts = [template.replace("{}", name) for name in names for template in self.templates]
        with frozen(context.method), context.precision():
            rows = data.tokenise(prompts).to(context.device).split(context.batch_size)
            texts = torch.cat([method.embed_text(ids).float() for ids in rows]).cpu()  # (C * T, D)
            images = context.collect("test", method.embed_image)
        classes = F.normalize(texts.unflatten(0, (len(names), -1)).mean(dim=1), dim=1)
        return {"zero_shot/top1": Proportion.of((images.x @ classes.T).argmax(dim=1) == images.y)}
