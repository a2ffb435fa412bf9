"""What a checkpoint says of its encoder is complete, plain, and compared."""

from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.training import encoder_card
from ssl_zoo.training.checkpoints import REQUIRED_KEYS, SafeCheckpointIO

FACTS = {"image_size": 32, "in_chans": 3, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "num_classes": 10}
ARGUMENTS = {"_target_": "x.y", "name": "resnet10t", "in_chans": 3, "image_size": 32, "small_stem": None}


def made(**arguments: Any) -> dict[str, Any]:
    backbone = image_backbone("resnet10t", 3, 32)
    return encoder_card.make_encoder_card("resnet10t", {**ARGUMENTS, **arguments}, backbone, FACTS)


def save(folder: Path, card: dict[str, Any] | None) -> str:
    saved: dict[str, Any] = {key: {} for key in REQUIRED_KEYS}
    saved["ssl_zoo"] = {"encoder": "method.backbone", "card": {} if card is None else {"encoder": card}}
    (folder / "checkpoints").mkdir(parents=True)
    SafeCheckpointIO().save_checkpoint(saved, folder / "checkpoints" / "step-00000001.ckpt")
    return str(folder)


def test_the_card_states_the_stem_and_no_weights_from_elsewhere() -> None:
    card = made(pretrained=True, strict=False)
    assert card["arguments"]["small_stem"] is True
    assert card["arguments"]["pretrained"] is False
    assert "strict" not in card["arguments"]
    assert "_target_" not in card["arguments"]
    assert card["facts"] == {key: FACTS[key] for key in ("image_size", "in_chans", "mean", "std")}
    assert "small_stem=True" in encoder_card.describe_inputs(card)


def test_a_card_of_text_names_the_tokenizer(tmp_path: Path) -> None:
    card = encoder_card.make_encoder_card(
        "text_tiny", {"vocab_size": 9, "depth": 2}, None, {"tokenizer_hash": "ab", "x": 1}
    )  # type: ignore[arg-type]
    assert card["facts"] == {"tokenizer_hash": "ab"}
    folder = save(tmp_path / "run", card)
    assert encoder_card.read_encoder_card(folder) == (card, None)
    (tmp_path / "run" / "tokenizer.json").write_text("{}")
    assert encoder_card.read_encoder_card(folder) == (card, tmp_path / "run" / "tokenizer.json")


def test_an_older_checkpoint_has_no_card_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert encoder_card.read_encoder_card(save(tmp_path / "run", None)) == (None, None)
    assert "does not say what its encoder needs" in caplog.text


@pytest.mark.parametrize("value", ["${oc.env:HOME}", {"_target_": "os.system"}, [{"_target_": "os.system"}]])
def test_a_strangers_card_configures_nothing(value: Any, tmp_path: Path) -> None:
    card = made()
    card["arguments"]["norm_layer"] = value
    with pytest.raises(ValueError, match="is no plain value"):
        encoder_card.read_encoder_card(save(tmp_path / "run", card))


@pytest.mark.parametrize(("key", "value"), [("image_size", 64), ("in_chans", 1), ("mean", [0.1, 0.2, 0.3])])
def test_other_inputs_are_refused_by_key(key: str, value: Any) -> None:
    encoder_card.check_inputs(made(), FACTS, "run")
    with pytest.raises(ValueError, match=rf"data\.{key}=.*checkpoint=run was trained with"):
        encoder_card.check_inputs(made(), FACTS | {key: value}, "run")


def test_another_tokenizer_is_refused() -> None:
    card = {"facts": {"tokenizer_hash": "a" * 64}}
    encoder_card.check_inputs(card, {"tokenizer_hash": "a" * 64}, "run")
    with pytest.raises(ValueError, match=r"sha256 aaaaaaaaaaaa, here bbbbbbbbbbbb.*data\.tokenizer\.name"):
        encoder_card.check_inputs(card, {"tokenizer_hash": "b" * 64}, "run")


@pytest.mark.parametrize("name", ["proj_drop_rate", "drop_path_rate", "grad_checkpointing"])
def test_what_leaves_the_weights_alone_is_free(name: str) -> None:
    assert encoder_card.is_training_option(name)
    assert not encoder_card.is_training_option("small_stem")
