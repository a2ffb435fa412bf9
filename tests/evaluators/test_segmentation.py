import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torch import Tensor, nn

from ssl_zoo.evaluators.confusion import confusion_matrix
from ssl_zoo.evaluators.knn import KNN
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.segmentation import Segmentation, mean_iou, patch_labels
from tests.evaluators.fakes import FakeData, judge

FACTS = {"image_size": 8, "in_chans": 3, "mean": [0.5] * 3, "std": [0.5] * 3, "has_labels": False}
COLOURS = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=np.uint8)


class Means(nn.Module):
    """An encoder of colours: its patches of 2 x 2 pixels have their mean as feature."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))

    def forward_features(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 2)


def encoded(pixels: np.ndarray) -> dict[str, Any]:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def write(folder: Path, wrong_in_test: int = 0) -> None:
    """Pictures of 16 x 24 pixels in 4 x 6 squares of three classes; the squares of the first row are void."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        rows = []
        for _ in range(4):
            squares = rng.integers(3, size=(4, 6))
            classes = squares.repeat(4, 0).repeat(4, 1)
            mask = classes.astype(np.uint8)
            mask[:4] = 11
            if split == "test":
                mask[4 : 4 + wrong_in_test] = (mask[4 : 4 + wrong_in_test] + 1) % 3
            rows.append({"image": encoded(COLOURS[classes]), "mask": encoded(mask)})
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{split}-00000-of-00001.parquet")


def segmentation(root: Path, **settings: Any) -> Segmentation:
    rest = {"classes": 3, "tiles": [2, 3], "patches": 300, "linear": Linear([1e-3], 0.2), "knn": KNN([3], None, False)}
    return Segmentation("scenes", str(root), **rest | settings)


def own(**facts: Any) -> FakeData:
    x, y = torch.zeros(2, 3, 8, 8), torch.tensor([-1, -1])
    return FakeData((x, y), (x[:0], y[:0]), **FACTS | facts)


def test_colours_are_told_apart_pixel_by_pixel_and_void_does_not_count(tmp_path: Path) -> None:
    write(tmp_path / "scenes")
    found = segmentation(tmp_path)(judge(own(), encoder=Means()))
    assert found.keys() == {f"segmentation/{n}/{m}" for n in ("linear", "knn") for m in ("miou", "accuracy")}
    assert min(found.values()) > 0.85  # borders are blurred by enlarging the scores


def test_wrong_masks_cost_their_share(tmp_path: Path) -> None:
    write(tmp_path / "scenes", wrong_in_test=4)  # one of the three rows that count
    found = segmentation(tmp_path)(judge(own(), encoder=Means()))
    assert found["segmentation/knn/accuracy"] == pytest.approx(2 / 3, abs=0.1)


def test_the_mean_iou_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(4, size=500), rng.integers(3, size=500)
    confusion = confusion_matrix(torch.from_numpy(truth), torch.from_numpy(predicted), 6)
    assert mean_iou(confusion) == pytest.approx(jaccard_score(truth, predicted, average="macro"))


def test_a_patch_has_the_class_of_most_of_its_pixels() -> None:
    mask = torch.tensor([[0, 0, 9, 9], [0, 1, 9, 9], [2, 2, 9, 1], [1, 2, 9, 9]])
    assert patch_labels(mask, (2, 2), 3).tolist() == [0, -1, 2, 1]


def test_patches_lie_where_their_pixels_are(tmp_path: Path) -> None:
    """The tiles of a picture are put together again in order."""
    write(tmp_path / "scenes")
    patches, grid, mask = next(segmentation(tmp_path)._pictures(judge(own(), encoder=Means()), "test"))
    assert grid == (8, 12)
    assert mask.shape == (16, 24)
    nearest = torch.cdist(patches, torch.from_numpy(COLOURS / 127.5 - 1).float()).argmin(1).view(grid)
    assert torch.equal(nearest[2:], mask[4::2, ::2])


def test_what_it_cannot_serve_is_skipped_or_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "scenes")
    assert segmentation(tmp_path)(judge(own(), "init", encoder=Means())) == {}
    assert segmentation(tmp_path)(judge(own(modality="text"), encoder=Means())) == {}
    assert "segmentation skipped" in caplog.text
    with pytest.raises(ValueError, match="needs the patches of an encoder: Flatten"):
        segmentation(tmp_path)(judge(own(), encoder=nn.Flatten()))
    with pytest.raises(ValueError, match=r"segmentation\.path=scenes: no files"):
        segmentation(tmp_path / "empty")
    for key, value in (("classes", 1), ("tiles", [3]), ("patches", 1)):
        with pytest.raises(ValueError, match=rf"evaluators\.segmentation\..*{key}"):
            segmentation(tmp_path, **{key: value})
