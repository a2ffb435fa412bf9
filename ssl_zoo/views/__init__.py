"""Views: random augmentations, with parameters sampled per example and computed per batch on the batch's device.

A view is what one pipeline, a list of ops, makes of an example. Images enter as uint8 and are float32 in [0, 1] until
`Normalize`, which comes last; token ids stay int64. For the same parameters every image op equals torchvision's to
rounding. There is no random state: see `keyed_random.py`; for the interface of an op, `op.py`.

Letters, here and in the ops: B examples, V views, C channels, H W image, S side of a crop, L tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_zoo.views.keyed_random import KeyedRandom
from ssl_zoo.views.op import Crop, Op, as_float


class Views:
    """Makes the views of a batch. View v of an example depends only on (seed, epoch, index, v).

    Args:
        pipelines: one list of ops for each kind of view; an empty list leaves examples unchanged.
        copies: number of views that each pipeline makes, 1 by default.
    """

    def __init__(self, pipelines: Sequence[Sequence[Op]], copies: Sequence[int] | None = None):
        copies = [1] * len(pipelines) if copies is None else copies
        if not pipelines:
            raise ValueError("views.pipelines=[]: give at least one list of ops, [[]] for examples as they are")
        if len(copies) != len(pipelines) or min(copies) < 1:
            raise ValueError(f"views.copies={list(copies)}: give 1 or more for each of {len(pipelines)} pipelines")
        self.kinds = [(list(ops), n) for ops, n in zip(pipelines, copies, strict=True)]
        self._make_on_gpu: Callable[..., list[Tensor]] = self._make

    @property
    def pipelines(self) -> list[list[Op]]:
        """The ops of each view."""
        return [ops for ops, n in self.kinds for _ in range(n)]

    def __len__(self) -> int:
        """V, the number of views of each example."""
        return sum(n for _, n in self.kinds)

    def compile(self) -> None:
        """Fuses the ops, hundreds of small kernels, for batches of images of one shape on a GPU."""
        # The 64-bit key products must stay tensors: as symbolic ints they overflow Inductor. Constant propagation,
        # dynamic shapes and graph breaks would each turn them into symbols, so all three are off.
        options: dict[str, str | int | bool | Callable] = {"constant_and_index_propagation": False}
        self._make_on_gpu = torch.compile(self._make, fullgraph=True, dynamic=False, options=options)

    @torch.no_grad()
    def __call__(self, images: Tensor | list[Tensor], indices: Tensor, epochs: Tensor | int, seed: int) -> list[Tensor]:
        """The views of a batch.

        Args:
            images: (B, C, H, W) uint8, or float32 in [0, 1]; or (B, L) int64 token ids; or the result of
                `crop_in_worker`, V tensors (B, C, S, S) uint8.
            indices: (B,) int64, positions in the data set.
            epochs: one for all, or (B,) int64.
            seed: of the run.

        Returns:
            One tensor per view: (B, C, S, S) float32, or (B, L) int64 for token ids.
        """
        if not isinstance(epochs, Tensor):
            epochs = torch.full_like(indices, epochs)  # a compiled pipeline would be compiled again for each int
        make = self._make if indices.device.type == "cpu" else self._make_on_gpu
        return make(images, indices, epochs, seed)

    def _make(self, images: Tensor | list[Tensor], indices: Tensor, epochs: Tensor, seed: int) -> list[Tensor]:
        made: list[Tensor] = []
        for ops, n in self.kinds:
            # All copies in one pass: on a GPU each op is a few small kernels, however large the batch.
            first = len(made)
            x = as_float(torch.cat(images[first : first + n] if isinstance(images, list) else [images] * n))
            view = torch.arange(first, first + n, device=indices.device).repeat_interleave(len(indices))
            random = KeyedRandom(seed, epochs.repeat(n), indices.repeat(n), view)
            for position, op in enumerate(ops):
                if position > 0 or not isinstance(images, list):  # otherwise a worker has cropped already
                    x = op(x, random.at(position))
            made += x.chunk(n)
        return made

    @torch.no_grad()
    def crop_in_worker(self, image: Tensor, index: int, epoch: int, seed: int) -> list[Tensor]:
        """Applies the first op of each pipeline, a crop, to one image of any size.

        The random parameters are those of the whole pipeline on the device. The results differ only by the rounding to
        uint8, which quarters the amount of data to transfer.

        Args:
            image: (C, H, W) uint8.
            index: position in the data set.
            epoch: of the run.
            seed: of the run.

        Returns:
            V tensors (C, S, S) uint8.

        Raises:
            ValueError: when a pipeline does not begin with a crop.
        """
        crops = []
        for view, ops in enumerate(self.pipelines):
            if not ops or not isinstance(ops[0], Crop):
                raise ValueError(
                    f"views.pipelines: pipeline {view} cannot take images of different sizes: begin it with "
                    f"RandomResizedCrop or CenterCrop"
                )
            crop = ops[0].crop(image, KeyedRandom(seed, epoch, torch.tensor([index]), view).at(0))
            crops.append(crop.mul_(255).round_().byte())
        return crops
