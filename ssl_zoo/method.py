"""The protocol of every method: it maps a batch of views and the progress of the run to a dict of scalars."""

from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from ssl_zoo.functional import ema_mode


class Batch(NamedTuple):
    """B examples as the data module delivers them, already on the device.

    Attributes:
        views: inputs of the backbone, one tensor per view; each is (B, C, H, W) float or (B, L) int64.
        labels: (B,) int64, -1 where unknown; only supervised methods may read them.
        indices: (B,) int64, the position of each example in its data set.
    """

    views: list[Tensor]
    labels: Tensor
    indices: Tensor


class Method(nn.Module):
    """A training objective around a backbone, independent of loop, optimizer, device, precision and logger.

    State changes in three places only: parameters in the optimizer, a method's own buffers (queue, centre) in
    `forward` during training, EMA networks and bounds on parameters in `after_step`.
    """

    min_views: ClassVar[int] = 1
    """Minimum number of views per batch; checked at start-up."""
    uses_labels: ClassVar[bool] = False
    """Whether `forward` reads `batch.labels`; if so, a data set without labels is an error at start-up."""
    constant_rate: ClassVar[tuple[str, ...]] = ()
    """Names of submodules trained at a constant learning rate, the peak rate, such as SimSiam's predictor."""

    backbone: Any
    """Maps a view (B, ...) to features (B, D), and has D as `num_features`; see `ssl_zoo.backbones`."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Computes the scalars to log; "loss" is minimised.

        Args:
            batch: at least `min_views` views of B examples.
            progress: elapsed fraction of the run's budget, in [0, 1).
        """
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Called once after each optimizer step, without gradient; EMA networks are updated here."""

    def train(self, mode: bool = True) -> "Method":
        """Sets the training mode; dropout and drop path of EMA networks stay off, see `functional.ema_mode`."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "is_ema", False):
                ema_mode(module, mode)
        return self

    @property
    def encoder(self) -> nn.Module:
        """The network that is evaluated and exported."""
        assert isinstance(self.backbone, nn.Module)
        return self.backbone
