"""Dense evaluation: the class of each pixel from the frozen features of patches, by a linear probe and by neighbours.

As Oquab et al., "DINOv2", TMLR 2024, https://arxiv.org/abs/2304.07193, Section 7.4, a linear layer on the patches whose
logits are enlarged to the mask; solved to its optimum as in `linear`. The neighbours vote as in `knn`. Pictures are
resized and cut to tiles of the size that the encoder takes, which the papers do not do. The test split is used once, at
the end. Letters: N patches, D width, C classes, H W mask, h w patches of a picture.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ssl_zoo.backbones.token_features import token_features
from ssl_zoo.data.image.decode import open_image
from ssl_zoo.evaluators.base import EvalContext, frozen, random_rows, warn_once
from ssl_zoo.evaluators.confusion import confusion_matrix
from ssl_zoo.evaluators.knn import KNN, votes
from ssl_zoo.evaluators.linear import Linear
from ssl_zoo.evaluators.pixels import from_pixels
from ssl_zoo.evaluators.sentences import SetSplit, read_columns


def mean_iou(confusion: Tensor) -> float:
    """Mean over classes of intersection over union, of counts (C, C) by class and prediction.

    Classes that neither occur nor are predicted are left out.
    """
    right = confusion.diag().double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return (right[union > 0] / union[union > 0]).mean().item()


def patch_labels(mask: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """The most frequent class below each patch, (h * w,) int64, -1 where no pixel has one.

    Args:
        mask: (H, W) int64; values from C on are void.
        grid: (h, w).
        num_classes: C.
    """
    classes = torch.arange(num_classes).view(-1, 1, 1)
    shares = F.adaptive_avg_pool2d((mask == classes).float(), grid).flatten(1)  # (C, h * w)
    return torch.where(shares.amax(dim=0) > 0, shares.argmax(dim=0), -1)


class Segmentation:
    """Reports `segmentation/linear/miou` and `segmentation/knn/miou`, and `.../accuracy`, the share of right pixels.

    At the end of a run only. Other encoders than those of images skip it, with a message.
    """

    needs_labels = False  # of the run's own data

    def __init__(
        self, path: str, root: str | None, classes: int, tiles: list[int], patches: int, linear: Linear, knn: KNN
    ):
        """Finds the set.

        Args:
            path: its folder below the root, in the Hub's layout, with the splits train and test and the columns image
                and mask.
            root: the folder that it lies in; None: `$SSL_ZOO_DATA`.
            classes: C; greater values of a mask are void and do not count.
            tiles: rows and columns of tiles that each picture is cut to.
            patches: training patches at most, a random sample.
            linear: the probe.
            knn: the nearest neighbours; of several numbers of them the first is used.

        Raises:
            ValueError: for a set that is not there, or settings outside their range.
        """
        key = "evaluators.segmentation"
        if classes < 2 or patches < 2:
            raise ValueError(f"{key}.classes={classes}, patches={patches}: give at least 2 of each")
        if len(tiles) != 2 or min(tiles) < 1:
            raise ValueError(f"{key}.tiles={tiles}: give the number of rows and of columns, [3, 4] for example")
        self.place = SetSplit(Path(root or os.environ.get("SSL_ZOO_DATA") or ".").expanduser() / path, "train")
        if not self.place.files():
            raise ValueError(
                f"{key}.path={path}: no files train-*.parquet in {self.place.folder}. Put the set there, or give "
                f"{key}.path, {key}.root or SSL_ZOO_DATA"
            )
        self.num_classes = classes
        self.tiles = tiles
        self.patches = patches
        self.linear = linear
        self.knn = knn

    def __call__(self, context: EvalContext) -> dict[str, float]:
        """All numbers.

        Raises:
            ValueError: for an encoder that gives one vector per image only, or a picture that cannot be read.
        """
        if context.phase != "final":
            return {}
        if context.data.facts["modality"] != "image":
            warn_once("segmentation skipped: the encoder is of text")
            return {}
        # ---- Train: patches with the class that most of their pixels have ----
        features, labels = [], []
        for patches, grid, mask in self._pictures(context, "train"):
            found = patch_labels(mask, grid, self.num_classes)
            features.append(patches[found >= 0].cpu())
            labels.append(found[found >= 0])
        bank, known = torch.cat(features), torch.cat(labels)
        rows = random_rows(len(bank), self.patches)
        bank, known = bank[rows].to(context.device), known[rows].to(context.device)
        probe = self.linear.standardized(bank, known)

        def by_probe(x: Tensor) -> Tensor:
            scores = x.new_full((len(x), self.num_classes), -1e4)
            scores[:, probe.probe.classes] = probe.logits(x)
            return scores

        mean = bank.mean(dim=0) if self.knn.center else 0.0
        k = min(self.knn.k[0], len(bank))

        def by_neighbours(x: Tensor) -> Tensor:
            return votes(bank - mean, known, x - mean, [k], self.knn.temperature, self.num_classes)[0]

        # ---- Test: scores of the patches, enlarged to the mask ----
        classifiers: dict[str, Callable[[Tensor], Tensor]] = {"linear": by_probe, "knn": by_neighbours}
        counts = {name: torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64) for name in classifiers}
        for patches, grid, mask in self._pictures(context, "test"):
            counted = mask < self.num_classes
            for name, classify in classifiers.items():
                scores = classify(patches).T.unflatten(1, grid)[None].cpu()  # (1, C, h, w)
                predicted = F.interpolate(scores, size=mask.shape, mode="bilinear")[0].argmax(dim=0)
                counts[name] += confusion_matrix(mask[counted], predicted[counted], self.num_classes)
        metrics: dict[str, float] = {}
        for name, confusion in counts.items():
            metrics[f"segmentation/{name}/miou"] = mean_iou(confusion)
            metrics[f"segmentation/{name}/accuracy"] = (confusion.diag().sum() / confusion.sum()).item()
        return metrics

    def _pictures(self, context: EvalContext, split: str) -> Iterator[tuple[Tensor, tuple[int, int], Tensor]]:
        """Of each picture the features of its patches (h * w, D) on the device, the grid (h, w) and the mask (H, W)."""
        columns = read_columns(self.place._replace(split=split), ["image", "mask"])
        encoder, facts = context.method.encoder, context.data.facts
        size, (rows, cols) = facts["image_size"], self.tiles
        for number, (image, mask) in enumerate(zip(columns["image"], columns["mask"], strict=True)):
            name = f"{self.place.folder}, {split} picture {number}"
            pixels = open_image(image["bytes"], name, facts["in_chans"])
            view = from_pixels(facts, _resized(pixels, rows * size, cols * size) / 255)
            tiles = view.unflatten(1, (rows, size)).unflatten(3, (cols, size)).permute(1, 3, 0, 2, 4).flatten(0, 1)
            with frozen(encoder), context.precision():
                try:
                    features, (h, w), _ = token_features(encoder, tiles.to(context.device))
                except ValueError as error:
                    raise ValueError(f"evaluators=[segmentation] needs the patches of an encoder: {error}") from error
            whole = features.float().view(rows, cols, h, w, -1).permute(0, 2, 1, 3, 4)  # (rows, h, cols, w, D)
            truth = torch.from_numpy(open_image(mask["bytes"], name, 1)[0]).long()
            yield whole.flatten(0, 3), (rows * h, cols * w), truth


def _resized(pixels: np.ndarray, height: int, width: int) -> Tensor:
    """Pixels (C, H, W) uint8 resized to (C, height, width) float32, antialiased."""
    bands = [np.asarray(Image.fromarray(band).resize((width, height), Image.Resampling.BILINEAR)) for band in pixels]
    return torch.from_numpy(np.stack(bands)).float()
