"""`task=fill_mask`: predicts the tokens that replace [MASK] in a text, with a trained MLM."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import torch
from omegaconf import DictConfig

from ssl_zoo.data.text.tokenizer import TextTokenizer
from ssl_zoo.methods.mlm import MLM
from ssl_zoo.report import display
from ssl_zoo.training import card, checkpoints, encoder_card, hardware, transcript

BLANK_PATTERN = re.compile(r"\[MASK\]|<mask>|_{3,}")


class Guess(NamedTuple):
    """One prediction.

    Attributes:
        score: probability over the whole vocabulary.
        token: token id.
        token_str: the token as readable text.
    """

    score: float
    token: int
    token_str: str


def load_masked_model(checkpoint: str) -> tuple[MLM, TextTokenizer]:
    """Loads the masked-token model and the tokenizer of a run, given as its folder or a checkpoint file in it.

    Raises:
        ValueError: if the run used another method, its weights or tokenizer do not match the checkpoint, or
            `card.read_card` rejects it.
    """
    path = checkpoints.resolve_checkpoint(checkpoint)
    saved = checkpoints.load_checkpoint(path)
    stored = card.read_card(saved, checkpoint)
    trained = card.compose_from_card(stored)
    if "mask_id" not in stored["facts"] or hydra.utils.get_object(trained.method["_target_"]) is not MLM:
        raise ValueError(f"checkpoint={checkpoint} is not a masked-token model: give a run of method=mlm")
    backbone = hydra.utils.instantiate(trained.backbone, _convert_="all")
    method = hydra.utils.instantiate(trained.method, backbone=backbone, _convert_="all")
    try:
        method.load_state_dict({k.removeprefix("method."): v for k, v in saved["state_dict"].items()})
    except RuntimeError as error:
        raise ValueError(f"checkpoint={checkpoint}: its weights are not those of its model: {error}") from error
    kept = path.parent.parent / encoder_card.TOKENIZER_NAME
    if not kept.exists():
        raise ValueError(f"checkpoint={checkpoint}: its tokenizer, {kept}, is missing. Give the run folder as it was")
    tokenizer = TextTokenizer(kept)
    if tokenizer.identity != stored["facts"]["tokenizer_hash"]:
        raise ValueError(f"{kept} is not the tokenizer of checkpoint={checkpoint}. Give the run folder as it was")
    return method, tokenizer


@torch.no_grad()
def guesses(method: MLM, tokenizer: TextTokenizer, text: str, top_k: int = 5) -> list[list[Guess]]:
    """Returns the `top_k` most probable tokens for each blank of `text` ("[MASK]", "<mask>" or "___"), best first.

    Several blanks are filled independently, as in common fill-mask pipelines. Special tokens are excluded, but the
    probabilities are over the whole vocabulary.

    Raises:
        ValueError: if there is no blank.
    """
    if not BLANK_PATTERN.search(text):
        raise ValueError(f"text={text!r} has no blank: write [MASK] where a word is to be predicted")
    ids = torch.from_numpy(tokenizer.encode([BLANK_PATTERN.sub("[MASK]", text)])[0])
    columns = (ids == method.mask_id).nonzero().flatten()
    probabilities = method.eval().masked_logits(ids[None], torch.zeros_like(columns), columns).softmax(dim=1)
    probabilities[:, : method.num_special] = 0
    scores, tokens = probabilities.topk(top_k, dim=1)
    return [
        [Guess(score, token, tokenizer.token(token)) for score, token in zip(*row, strict=True)]
        for row in zip(scores.tolist(), tokens.tolist(), strict=True)
    ]


def guesses_table(text: str, found: list[list[Guess]]) -> Any:
    """Returns a rich table with one row per guess: number of the blank, token, probability and a bar."""
    from rich.table import Table
    from rich.text import Text

    grid = Table("blank", "word", "probability", "", title=Text(display.to_plain_text(text)), title_style="bold")
    for number, row in enumerate(found, start=1):
        for i, guess in enumerate(row):
            bar = "█" * round(30 * guess.score)
            end = i == len(row) - 1
            grid.add_row(
                str(number) if i == 0 else "",
                Text(display.to_plain_text(guess.token_str)),
                f"{guess.score:.1%}",
                bar,
                end_section=end,
            )
    return grid


def fill_mask(cfg: DictConfig, folder: Path) -> None:
    """Prints the most probable tokens for each blank of `text`, using the masked-token model of `checkpoint`."""
    from rich.console import Console

    from ssl_zoo.tasks import fill_mask

    transcript.write_transcript(folder)
    if not isinstance(cfg.text, str) or not isinstance(cfg.checkpoint, str):
        raise ValueError('task=fill_mask needs checkpoint=<run folder> and text="The movie was [MASK]."')
    hardware.prepare_torch("cpu", "32-true")
    method, tokenizer = fill_mask.load_masked_model(cfg.checkpoint)
    Console().print(fill_mask.guesses_table(cfg.text, fill_mask.guesses(method, tokenizer, cfg.text)))
