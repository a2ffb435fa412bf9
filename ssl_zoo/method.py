"""The protocol every objective follows: a batch of views and the run's progress in, scalars out."""

from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from ssl_zoo.functional import ema_mode


class Batch(NamedTuple):
    """B examples as the data module delivers them, already on the device.

    views: the inputs of the backbone, one tensor a view; each is (B, C, H, W) float or (B, L) int64.
    labels: (B,) int64, -1 where unknown; only supervised methods may read them.
    indices: (B,) int64, the position of each example in its data set.
    """

    views: list[Tensor]
    labels: Tensor
    indices: Tensor


class Method(nn.Module):
    """A training objective around a backbone. It knows no loop, optimizer, device, precision or logger.

    State changes in three places only: parameters in the optimizer, a method's own buffers (queue, centre) in a
    training `forward`, EMA networks (and limits on a parameter) in `after_step`.
    """

    min_views: ClassVar[int] = 1
    """The fewest views a batch must hold; checked at start-up."""
    uses_labels: ClassVar[bool] = False
    """Whether `forward` reads `batch.labels`; then a data set without labels is refused at start-up."""

    constant_rate: ClassVar[tuple[str, ...]] = ()
    """Names of submodules that learn at the peak rate throughout, such as SimSiam's predictor."""

    backbone: Any
    """What turns a view into features: (B, ...) -> (B, D), with D as `num_features`; see `backbones.py`."""

    def __init__(self, backbone: nn.Module):
        super().__init__()
        self.backbone = backbone

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """Scalars to log; "loss" is minimised. `progress` is the spent fraction of the run's budget, in [0, 1)."""
        raise NotImplementedError

    def after_step(self, progress: float) -> None:
        """Runs once after each optimizer step, without gradient; EMA networks move here."""

    def train(self, mode: bool = True) -> "Method":
        """As torch's; EMA networks keep dropout and drop path off (`functional.ema_mode`)."""
        super().train(mode)
        for part in self.modules():
            if getattr(part, "is_ema", False):
                ema_mode(part, mode)
        return self

    @property
    def encoder(self) -> nn.Module:
        """The network that is evaluated, exported and kept."""
        assert isinstance(self.backbone, nn.Module)
        return self.backbone
