"""The only LightningModule: it steps any method and owns the optimizer and the schedule."""

import logging
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from timm.layers import convert_sync_batchnorm
from timm.optim import param_groups_weight_decay
from torch import Tensor

from ssl_zoo.clock import Clock
from ssl_zoo.distributed import gather_batch_norm, rank, whole, world_size
from ssl_zoo.method import Batch, Method

log = logging.getLogger(__name__)


class NonFiniteLoss(RuntimeError):
    """The loss or a gradient became NaN or infinite; the weights were not updated with it."""


class Learner(LightningModule):
    """Trains `method` until the budget is used up: `total_steps` optimizer steps or `minutes` of training time.

    Args:
        method: what is trained.
        optimizer: builds the optimizer from parameter groups; a partial whose `lr` is the peak rate.
        schedule: factor of the learning rate as a function of progress.
        seed: of the step's own random numbers, such as masks and dropout.
        total_steps: the budget in optimizer steps, None if it is time.
        minutes: the budget in minutes of training, None if it is steps.
        compile_method: whether to compile `method`, in place.
        decay_norms_and_biases: whether weight decay applies to every parameter.
        card: plain facts kept in each checkpoint, from which a checkpoint alone can be rebuilt.
        clock: counts the training time.

    Attributes:
        batches_seen: global batches consumed, of which several may make one optimizer step.
        now: progress at the current step.
        skipped_steps: optimizer steps that the gradient scaler of 16-mixed skipped, over all sessions.
    """

    def __init__(
        self,
        method: Method,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[[float], float],
        seed: int,
        total_steps: int | None = None,
        minutes: float | None = None,
        compile_method: bool = False,
        decay_norms_and_biases: bool = False,
        card: dict[str, Any] | None = None,
        clock: Clock | None = None,
    ):
        super().__init__()
        self.method = method
        self.make_optimizer = optimizer
        self.schedule = schedule
        self.seed = seed
        self.total_steps = total_steps
        self.minutes = minutes
        self.compile_method = compile_method
        self.decay_norms_and_biases = decay_norms_and_biases
        self.card = card or {}
        self.clock = clock or Clock()
        self.batches_seen = 0
        self.now = 0.0
        self.skipped_steps = 0
        self.last_loss = torch.zeros(())
        self.found_bad = torch.zeros(())

    @property
    def log_every(self) -> int:
        """Optimizer steps between two records of the metrics."""
        return int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]

    @property
    def progress(self) -> float:
        """Elapsed fraction of the budget."""
        if self.minutes is None:
            assert self.total_steps is not None
            return min(self.global_step / self.total_steps, 1.0)
        elapsed = torch.tensor(self.clock.seconds / (60 * self.minutes), dtype=torch.float64, device=self.device)
        if world_size() > 1:
            dist.broadcast(elapsed, 0)  # all processes must see the same clock
        return min(elapsed.item(), 1.0)

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What scales the loss under 16-mixed, so that small gradients do not vanish in float16."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def setup(self, stage: str) -> None:
        """Makes BatchNorm statistics those of all processes, and compiles the method."""
        if self.trainer.world_size > 1:  # the same statistics, and so the same loss, as one process would have
            if self.trainer.strategy.root_device.type == "cpu":
                gather_batch_norm(self.method)
            else:
                self.method = convert_sync_batchnorm(self.method)  # type: ignore[no-untyped-call]
        if self.compile_method:
            self.method.compile()  # in place: checkpoint keys keep their names

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Builds the optimizer with its parameter groups.

        Weight decay spares norms, biases and what a backbone lists in `no_weight_decay()`, as in most papers, unless
        `decay_norms_and_biases` applies it to every parameter.
        """
        decay = self.make_optimizer.keywords.get("weight_decay", 0.0)  # type: ignore[attr-defined]
        spared = [
            f"{name}.{parameter}".lstrip(".")
            for name, module in self.method.named_modules()
            if callable(listing := getattr(module, "no_weight_decay", None))
            for parameter in listing()
        ]
        if self.decay_norms_and_biases:
            trained = [p for p in self.method.parameters() if p.requires_grad]
            groups = [{"params": trained, "weight_decay": decay}]
        else:
            groups = param_groups_weight_decay(self.method, decay, no_weight_decay_list=spared)
        constant = {p for name in self.method.constant_rate for p in self.method.get_submodule(name).parameters()}
        parts = [
            group | {"params": part, "constant": part_is_constant}
            for group in groups
            for part_is_constant in (False, True)
            if (part := [p for p in group["params"] if (p in constant) == part_is_constant])
        ]
        optimizer = self.make_optimizer(parts)
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
        return optimizer

    def on_train_start(self) -> None:
        """Starts the clock."""
        self.clock.start()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Computes the loss of one batch at the current progress, and logs the method's scalars."""
        # The step's own draws (masks, dropout) depend on these three numbers alone, so a resumed run repeats them.
        torch.manual_seed(int(np.random.SeedSequence((self.seed, self.batches_seen, rank())).generate_state(1)[0]))
        self.batches_seen += 1
        self.now = min(self.progress, math.nextafter(1.0, 0.0))  # a budget of minutes may run out between two steps
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["peak_lr"] * (1.0 if group["constant"] else self.schedule(self.now))
        scalars: dict[str, Tensor] = self.method(batch, self.now)
        self.last_loss = scalars["loss"].detach()
        if (self.global_step + 1) % self.log_every == 0:
            metrics = {f"train/{name}": value.detach() for name, value in scalars.items()}
            self.log_dict(metrics, batch_size=1, sync_dist=True)  # the mean over processes is what one would have had
            self.log_dict({"lr": group["lr"], "progress": self.now, "step": self.global_step + 1.0}, batch_size=1)
            if self.scaler is not None:
                self.log("train/skipped_steps", float(self.skipped_steps), batch_size=1)
        return scalars["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Raises NonFiniteLoss before a NaN can reach the weights.

        On a GPU the flag is read only when metrics are logged, since reading it waits for the device; a checkpoint with
        a NaN is never written. With a gradient scaler only the loss counts: the scaler finds its scale by gradients
        that overflow, and skips their step by itself.
        """
        gradients = [p.grad for p in self.method.parameters() if p.grad is not None]
        norm = whole(torch.nn.utils.get_total_norm(gradients))
        checked = self.last_loss if self.scaler is not None else norm + self.last_loss
        self.found_bad = self.found_bad.to(norm.device) + ~checked.isfinite()
        on_time = (self.global_step + 1) % self.log_every == 0
        if (self.device.type == "cpu" or on_time) and self.found_bad:
            raise NonFiniteLoss(
                f"step {self.global_step}: loss {self.last_loss.item()}, gradient norm {norm.item()}, learning rate "
                f"{optimizer.param_groups[0]['lr']:.3g}. The weights were not updated. "
                "Try a lower optimizer.lr, trainer.gradient_clip_val=1 or trainer.precision=32-true"
            )

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps the optimizer, then the method's EMA networks, unless the gradient scaler skipped the step."""
        scale = 0.0 if self.scaler is None else self.scaler.get_scale()
        super().optimizer_step(*args, **kwargs)
        new_scale = 0.0 if self.scaler is None else self.scaler.get_scale()
        if new_scale < scale:  # how torch lets one know that the optimizer was not stepped
            self._count_skipped_step(new_scale)
        else:
            with torch.no_grad():
                self.method.after_step(self.now)
        self.clock.step(self.batches_seen)
        if self.minutes is not None and self.progress >= 1:
            self.trainer.should_stop = True

    def _count_skipped_step(self, scale: float) -> None:
        """Counts a step whose gradients overflowed, after which the scaler lowered its `scale`.

        Raises:
            NonFiniteLoss: for a scale below 1, where gradients overflow without being scaled up.
        """
        self.skipped_steps += 1
        if scale < 1:
            raise NonFiniteLoss(
                f"step {self.global_step}: gradients overflow float16 even at a loss scale below 1 ({scale:.3g}); "
                f"{self.skipped_steps} steps were skipped. The weights are those of the last sound step. "
                "Try a lower optimizer.lr, trainer.precision=bf16-mixed or trainer.precision=32-true"
            )

    def on_train_end(self) -> None:
        """Warns if steps were skipped."""
        if self.skipped_steps:
            log.warning(
                "%d of %d optimizer steps were skipped because gradients overflowed float16; they count as steps",
                self.skipped_steps,
                self.global_step,
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the card, the place of the encoder's weights and the counters of the run."""
        encoder = next((k for k, part in self.method.named_modules() if part is self.method.encoder), "backbone")
        checkpoint["ssl_zoo"] = {
            "card": self.card,
            "encoder": f"method.{encoder}",  # where its weights are in the state, for those who go on from it
            "batches_seen": self.batches_seen,
            "elapsed": self.clock.seconds,
            "skipped_steps": self.skipped_steps,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters, and where the order of the data goes on."""
        self.batches_seen = checkpoint["ssl_zoo"]["batches_seen"]
        self.clock.earlier = checkpoint["ssl_zoo"]["elapsed"]
        self.skipped_steps = checkpoint["ssl_zoo"].get("skipped_steps", 0)  # older ones have none
        self.trainer.datamodule.start_batch = self.batches_seen  # type: ignore[attr-defined]
