"""`task=introduce`: one of the six figures of docs/introduction.md, by `experiment=intro/dots` and so on.

Four of the stories are pre-training runs like any other, after which the figure is drawn from what they left; running
the command again in the same folder draws it anew. Two need no training.
"""

import logging
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig
from torch import Tensor

from ssl_zoo import files
from ssl_zoo.build import build_data, build_method
from ssl_zoo.config import nearest, shipped_conf
from ssl_zoo.evaluators.base import EvalContext, frozen, same_rng
from ssl_zoo.evaluators.classifier import Classifies
from ssl_zoo.evaluators.zero_shot import TwoTowers
from ssl_zoo.introduction import dots, labels, pairs, supervised, views, words
from ssl_zoo.method import Method
from ssl_zoo.methods.mlm import MLM
from ssl_zoo.report import results
from ssl_zoo.tasks.fill_mask import guesses
from ssl_zoo.tasks.pretrain import pretrain
from ssl_zoo.training import checkpoints, hardware, transcript

log = logging.getLogger(__name__)

MEAN, STD = 0.5, 0.25
"""What the views of one picture are normalised by."""
DIGIT = 3
"""The row of scikit-learn's digits that is shown: a three."""
ON_A_PHOTO = {
    "simclr": "SimCLR: two crops in other colours, three times",
    "byol": "BYOL: milder colours, bright parts inverted at times",
    "dino": "DINO: two large crops and four small ones",
    "rotnet": "RotNet: which way is up?",
    "mae": "MAE: three quarters of the tiles are hidden",
    "simmim": "SimMIM: larger squares are hidden",
    "ijepa": "I-JEPA: what is seen, and what is to be predicted",
}
"""Titles of the rows of the photograph by method."""
ON_A_DIGIT = {
    "simclr": "SimCLR on a digit: moved and tilted, never mirrored",
    "mae": "MAE on a digit of 16 tiles",
}
"""Titles of the rows of the digit by method."""


class Trained(NamedTuple):
    """What a pre-training run leaves for a figure.

    Attributes:
        before: the method with the random weights that it began with.
        after: the method with its weights at the end.
        data: what it was trained and tested on.
        metrics: of its results.json.
    """

    before: Method
    after: Method
    data: Any
    metrics: dict[str, float]


def introduce(cfg: DictConfig, folder: Path) -> None:
    """Writes the figure of the story `cfg.story` to `folder`, after training where the story is about a trained method.

    Args:
        cfg: the composed configuration.
        folder: the run folder; a training that was interrupted in it goes on.

    Raises:
        ValueError: for an unknown story, or a method that does not fit it.
    """
    if cfg.story in UNTRAINED:
        transcript.write_transcript(folder)
        hardware.prepare_torch("cpu", "32-true")
        content = UNTRAINED[cfg.story](cfg.seed)
    elif cfg.story in TRAINED:
        check_story(cfg)
        cfg.task = "pretrain"  # which it is from here on, also for who resumes, evaluates or compares it
        pretrain(cfg, folder)
        if cfg.data.get("check") or rank_zero_only.rank:  # type: ignore[attr-defined]
            return
        content = TRAINED[cfg.story](cfg, read_trained(cfg, folder))
    else:
        stories = [*UNTRAINED, *TRAINED]
        raise ValueError(f"story={cfg.story}: no such story{nearest(str(cfg.story), stories)} There are: {stories}")
    path = folder / f"{cfg.story}.png"
    files.write_atomically(path, content)
    log.info("figure: %s", path)


def check_story(cfg: DictConfig) -> None:
    """Raises ValueError, before any training, for a method or an evaluation that leaves nothing to draw."""
    wanted, example = METHODS.get(cfg.story, (Method, ""))
    found = hydra.utils.get_class(cfg.method["_target_"])
    if not issubclass(found, wanted):
        raise ValueError(f"story={cfg.story} does not fit {found.__name__}: give method={example}")
    needed = EVALUATORS.get(cfg.story)
    if needed is not None and needed not in (cfg.get("evaluators") or {}):
        raise ValueError(f"story={cfg.story} draws what evaluators=[{needed}] measures: add {needed} to evaluators")


def read_trained(cfg: DictConfig, folder: Path) -> Trained:
    """The method of a completed run with its first weights and its last, and its data."""
    data = build_data(cfg)
    before, after = build_method(cfg), build_method(cfg)
    newest = checkpoints.latest_checkpoint(folder)
    if newest is None:
        raise ValueError(f"{folder}: its checkpoints are gone. Give another hydra.run.dir to train anew")
    state = checkpoints.load_checkpoint(newest)["state_dict"]
    after.load_state_dict({name.removeprefix("method."): value for name, value in state.items()})
    return Trained(before, after, data, results.read_results(folder)["metrics"])


# ---- One function per story: what its figure is drawn from ----


def tell_supervised(cfg: DictConfig, run: Trained) -> bytes:
    """The classifier's answers to the test pictures."""
    images, truth = eval_pictures(run)
    assert isinstance(run.after, Classifies)
    with frozen(run.after):
        answers = EvalContext(run.after, run.data, "final").collect("test", run.after.classify).x.argmax(dim=1)
    draws = cfg.evaluators.few_labels.scratch.draws
    return supervised.draw_supervised(images, answers, truth, run.metrics, draws, run.data.num_train)


def tell_labels(cfg: DictConfig, run: Trained) -> bytes:
    """Accuracies with few labels, from the metrics."""
    few, facts = cfg.evaluators.few_labels, run.data.facts
    return labels.draw_labels(run.metrics, few.draws, few.scratch.draws, facts["num_train"], facts["num_classes"])


def tell_words(cfg: DictConfig, run: Trained) -> bytes:
    """Guesses for the blanks of the sentences."""
    both = []
    for method in (run.before, run.after):
        assert isinstance(method, MLM)
        rows = [guesses(method, run.data.tokenizer, sentence, words.NUM_GUESSES)[0] for sentence in words.SENTENCES]
        both.append([[(guess.token_str.strip(), guess.score) for guess in row] for row in rows])
    before, after = both
    return words.draw_words(before, after, run.metrics)


def tell_pairs(cfg: DictConfig, run: Trained) -> bytes:
    """The test pictures, and the first template with the name of each class, in the space of both."""
    images, truth = eval_pictures(run)
    sentences = [run.data.templates[0].replace("{}", name) for name in run.data.facts["class_names"]]
    both = []
    for method in (run.before, run.after):
        assert isinstance(method, TwoTowers)
        with frozen(method):
            pictures = EvalContext(method, run.data, "final").collect("test", method.embed_image).x
            both.append(pairs.Embedded(pictures, method.embed_text(run.data.tokenise(sentences))))
    return pairs.draw_pairs(images, truth, sentences, *both)


def eval_pictures(run: Trained) -> tuple[Tensor, Tensor]:
    """The first channel of the test pictures, (N, H, W) in [0, 1], and their labels (N,) int64, in their order."""
    facts = run.data.facts
    found = EvalContext(run.after, run.data, "final").inputs("test")
    images = found.x.view(len(found.x), facts["in_chans"], facts["image_size"], facts["image_size"])[:, 0]
    return (images * facts["std"][0] + facts["mean"][0]).clamp(0, 1), found.y


def tell_views(seed: int) -> bytes:
    """A photograph and a digit that scikit-learn ships, as each method's own configuration alters them."""
    from sklearn.datasets import load_digits, load_sample_image

    photo = torch.from_numpy(load_sample_image("flower.jpg").copy()).permute(2, 0, 1)
    side = min(photo.shape[1:])
    left = (photo.shape[2] - side) // 2
    photo = photo[:, :side, left : left + side]
    digit = torch.from_numpy(load_digits().images[DIGIT] * (255 / 16)).round().byte()[None]
    whole = digit.repeat_interleave(side // 8, 1).repeat_interleave(side // 8, 2)
    rows = [views.Strip("A photograph, and a handwritten digit", [photo / 255, 1 - whole / 255])]
    rows += [views.Strip(title, seen(name, photo, seed)) for name, title in ON_A_PHOTO.items()]
    rows += [views.Strip(title, seen(name, digit, seed)) for name, title in ON_A_DIGIT.items()]
    return views.draw_views(rows)


def seen(name: str, picture: Tensor, seed: int) -> list[Tensor]:
    """What a method gets to see of one picture, in its own views and with its own masks.

    Args:
        name: of the method.
        picture: (C, H, W) uint8; one channel stands for digits.
        seed: of views and masks.

    Returns:
        `views.NUM_CELLS` pictures (C, H, W) in [0, 1].
    """
    channels = len(picture)
    size, data = (96, "folder") if channels == 3 else (picture.shape[1], "digits")
    facts = {"modality": "image", "image_size": size, "half_size": size // 2, "in_chans": channels,
             "mean": [MEAN] * channels, "std": [STD] * channels, "num_indices": 1, "num_classes": 10}  # fmt: skip
    with shipped_conf():
        cfg = hydra.compose("config", [f"method={name}", f"data={data}"])
    cfg.seed, cfg.facts = seed, facts
    make = hydra.utils.instantiate(cfg.views, _convert_="all")
    cells: list[Tensor] = []
    with same_rng():
        method = build_method(cfg) if name in views.HIDES else None  # seeds torch
        for epoch in count():
            for view in make(picture[None], torch.zeros(1, dtype=torch.int64), epoch, seed):
                shown = (view[0] * STD + MEAN).clamp(0, 1)
                more = views.altered(name, method, view, shown if channels == 3 else 1 - shown)  # digits: ink on paper
                if len(cells) + len(more) > views.NUM_CELLS:
                    return cells
                cells += more
    raise AssertionError("there is always a next epoch")


UNTRAINED: dict[str, Callable[[int], bytes]] = {"dots": dots.draw_dots, "views": tell_views}
"""Stories that need no training: the figure for a seed."""
TRAINED: dict[str, Callable[[DictConfig, Trained], bytes]] = {
    "supervised": tell_supervised,
    "labels": tell_labels,
    "words": tell_words,
    "pairs": tell_pairs,
}
"""Stories of a trained method: the figure for its run."""
METHODS: dict[str, tuple[type, str]] = {
    "supervised": (Classifies, "supervised"),
    "words": (MLM, "mlm"),
    "pairs": (TwoTowers, "clip"),
}
"""What a story needs of the method, and a method that has it."""
EVALUATORS = {"supervised": "few_labels", "labels": "few_labels", "words": "mask"}
"""What a story needs to have been measured."""
