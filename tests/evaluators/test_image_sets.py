from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ssl_zoo.evaluators.image_sets import ImageSets

FACTS = {"image_size": 8, "in_chans": 3, "mean": [0.5] * 3, "std": [0.5] * 3}
KEY = "evaluators.transfer_images"


@pytest.fixture
def root(tmp_path: Path, cache_root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one set, of two classes in two splits."""
    monkeypatch.setenv("SSL_ZOO_CACHE", str(cache_root))
    for split in ("train", "test"):
        for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
            folder = tmp_path / "colours" / split / name
            folder.mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (8, 8), colour).save(folder / f"{number}.png")
    return tmp_path


def test_sets_that_are_there_are_read_as_the_encoder_takes_them(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    known = {"colours": "colours", "more": "more", "digits": "sklearn:digits"}
    sets = ImageSets(known, None, str(root), 3, KEY)
    assert "transfer_images: not below" in caplog.text
    assert "so skipped: more" in caplog.text
    opened: Any = dict(sets.open(FACTS))
    assert opened.keys() == {"colours", "digits"}
    (batch,) = opened["colours"].eval_batches("test", 10)
    assert batch.views[0].shape == (3, 3, 8, 8)
    assert batch.views[0][0, :, 0, 0].tolist() == pytest.approx([-1, -1, 1])
    assert opened["colours"] is dict(sets.open(FACTS))["colours"], "each is read once"
    assert torch.cat([b.views[0] for b in opened["digits"].eval_batches("train", 10)]).shape == (3, 3, 8, 8)


def test_sets_that_are_named_must_be_there(root: Path) -> None:
    with pytest.raises(ValueError, match=r"transfer_images\.sets: more is not there: .*more does not exist"):
        ImageSets({"colours": "colours", "more": "more"}, ["colours", "more"], str(root), None, KEY)
    with pytest.raises(ValueError, match="is not there"):
        ImageSets({"more": "more"}, None, str(root), None, KEY)
    with pytest.raises(ValueError, match=r"x is unknown.*known\.x=<folder>"):
        ImageSets({"colours": "colours"}, ["x"], str(root), None, KEY)
    with pytest.raises(ValueError, match="one or more different sets"):
        ImageSets({"colours": "colours"}, [], str(root), None, KEY)
    with pytest.raises(ValueError, match=r"examples=0"):
        ImageSets({"colours": "colours"}, None, str(root), 0, KEY)
