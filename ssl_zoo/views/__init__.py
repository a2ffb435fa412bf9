"""Views: randomly changed versions of each example, drawn per example and computed per batch on the batch's device.

A view is what one pipeline, a list of ops, makes of an example. Images enter as uint8 and are float32 in [0, 1] until
`Normalize`, which comes last; token ids stay int64. For the same parameters every image op equals torchvision's to
rounding. Nothing random is carried from batch to batch: see `draws.py`; for what an op is, `op.py`.

Letters, here and in the ops: B examples, V views, C channels, H W image, S side of a crop, L tokens.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ssl_zoo.views.draws import Draws
from ssl_zoo.views.op import Crop, Op, as_float


class Views:
    """Makes the views of a batch. View v of an example depends only on (seed, epoch, index, v).

    pipelines: one list of ops for each kind of view; an empty list passes examples on as they are.
    copies: how many views each pipeline makes; one if not given.
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
        """Fuses the ops for batches of images of one shape on a GPU, to which they are hundreds of small kernels."""
        # As symbols the products of the random keys are too large for Inductor's integers. They become some by its
        # propagation, where a number is dynamic, and where the ops are not one graph.
        options: dict[str, str | int | bool | Callable] = {"constant_and_index_propagation": False}
        self._make_on_gpu = torch.compile(self._make, fullgraph=True, dynamic=False, options=options)

    @torch.no_grad()
    def __call__(self, images: Tensor | list[Tensor], indices: Tensor, epochs: Tensor | int, seed: int) -> list[Tensor]:
        """One tensor a view: (B, C, S, S) float32, or (B, L) int64 for token ids.

        images: (B, C, H, W) uint8, or float32 in [0, 1]; or (B, L) int64 token ids; or what `crop_in_worker` gave,
        V tensors (B, C, S, S) uint8. indices: (B,) int64; epochs: one for all or (B,) int64.
        """
        if not isinstance(epochs, Tensor):
            epochs = torch.full_like(indices, epochs)  # a number would have a compiled pipeline made anew in each epoch
        make = self._make if indices.device.type == "cpu" else self._make_on_gpu
        return make(images, indices, epochs, seed)

    def _make(self, images: Tensor | list[Tensor], indices: Tensor, epochs: Tensor, seed: int) -> list[Tensor]:
        made: list[Tensor] = []
        for ops, n in self.kinds:
            # All copies in one pass: to a GPU each op is a few small kernels, however large the batch.
            first = len(made)
            x = as_float(torch.cat(images[first : first + n] if isinstance(images, list) else [images] * n))
            view = torch.arange(first, first + n, device=indices.device).repeat_interleave(len(indices))
            draws = Draws(seed, epochs.repeat(n), indices.repeat(n), view)
            for position, op in enumerate(ops):
                if position > 0 or not isinstance(images, list):  # else a worker has cropped already
                    x = op(x, draws.at(position))
            made += x.chunk(n)
        return made

    @torch.no_grad()
    def crop_in_worker(self, image: Tensor, index: int, epoch: int, seed: int) -> list[Tensor]:
        """What the first op of each pipeline makes of one image of any size: (C, H, W) uint8 -> V x (C, S, S) uint8.

        The draws are those of the whole pipeline on the device. Only the rounding to uint8, which quarters what is
        sent there, tells the two ways apart.

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
            crop = ops[0].crop(image, Draws(seed, epoch, torch.tensor([index]), view).at(0))
            crops.append(crop.mul_(255).round_().byte())
        return crops
