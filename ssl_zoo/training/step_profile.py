"""`trainer.profile=true`: where the time of a training step goes, what share the bare step has, and what to change.

Lightning names each thing it does to its profiler; here these names are summed to the phases of a step. Where one thing
happens inside of another, its time counts for the inner one alone.
"""

import logging
import time
from collections import defaultdict

import torch
from lightning.pytorch.profilers import Profiler

log = logging.getLogger(__name__)

WARM_UP = 3
"""Steps that are not counted, in which kernels are loaded and code is compiled, unless there are no others."""
PHASES = {
    "callbacks and logging": ("[Callback]",),
    "waiting for data": ("train_dataloader_next",),
    "views": ("on_after_batch_transfer",),
    "to the device": ("batch_to_device", "transfer_batch_to_device", "on_before_batch_transfer"),
    "forward and loss": (".training_step",),
    "backward": (".backward",),
    "optimizer and EMA": (
        "Learner.optimizer_step", "zero_grad", "on_before_optimizer_step", "configure_gradient_clipping",
    ),
}  # fmt: skip
"""Phases of a step -> what the names of Lightning's actions contain; the first that matches counts. The callbacks log,
save checkpoints, look for collapse and evaluate."""
REST = "the rest of the loop"
BARE = ("forward and loss", "backward", "optimizer and EMA")
"""What no loop can do without."""
REMEDIES = {
    "waiting for data": "more data.num_workers, or data.store=ram if the images fit",
    "views": "cheaper views, smaller data.image_size; on a GPU they are computed there",
    "to the device": "a smaller data.image_size; images are sent with 8 bits per number",
    "callbacks and logging": "larger trainer.log_every_n_steps, trainer.checkpoint_every or trainer.evaluate_every",
    REST: "a larger data.batch_size: this is paid once per step",
}
"""What to change where a phase takes more than `NOTABLE` of a step."""
NOTABLE = 0.1


class StepProfile(Profiler):
    """Sums the time of each phase of the training steps and logs a table at the end of training.

    On a GPU each phase waits for the device, so that its work is counted where it was asked for; a step takes longer.

    Attributes:
        seconds: by phase.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self._made = 0
        self._open: list[str] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        """Begins an action; that around it is on hold."""
        self._count_time()
        if self._made == WARM_UP and phase_of(action_name) == "waiting for data":
            self.seconds.clear()  # the first step after the warm-up begins
        self._open.append(action_name)
        self._made += action_name == "run_training_batch"

    def stop(self, action_name: str) -> None:
        """Ends an action."""
        self._count_time()
        self._open.remove(action_name)

    @property
    def steps(self) -> int:
        """Batches that are counted."""
        return self._made - WARM_UP if self._made > WARM_UP else self._made

    def summary(self) -> str:
        """The table, the share of the bare step, and the advice; "" if no step was made."""
        total = sum(self.seconds.values())
        if not self.steps or not total:
            return ""
        phases = [*PHASES, REST]
        lines = [f"{'of a training step':<24}{'ms':>10}{'share':>8}"]
        for phase in phases:
            lines.append(
                f"{phase:<24}{1000 * self.seconds[phase] / self.steps:>10.2f}{self.seconds[phase] / total:>8.1%}"
            )
        lines.append(f"{'in all':<24}{1000 * total / self.steps:>10.2f}{1:>8.1%}   mean of {self.steps} steps")
        bare = sum(self.seconds[phase] for phase in BARE) / total
        lines.append(f"{bare:.0%} is the bare step: forward, backward and optimizer")
        advice = [phase for phase in phases if phase in REMEDIES and self.seconds[phase] > NOTABLE * total]
        lines += [f"{phase}: {REMEDIES[phase]}" for phase in advice]
        if not advice:
            lines.append(
                "what is around it is small. Faster steps: trainer.precision=bf16-mixed where the hardware has it, "
                "trainer.compile=true on a GPU, a smaller backbone or image"
            )
        return "\n".join(lines)

    def describe(self) -> None:
        """Logs the summary; called by Lightning at the end of training, in each process."""
        if not self._local_rank and (summary := self.summary()):
            log.info(summary)

    def _count_time(self) -> None:
        """Adds the time since the last call to the phase of the innermost open action, while the training loop runs."""
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        now = time.perf_counter()
        if "run_training_epoch" in self._open:
            self.seconds[phase_of(self._open[-1])] += now - self._since
        self._since = now


def phase_of(action: str) -> str:
    """The phase that an action of Lightning's belongs to."""
    return next((phase for phase, parts in PHASES.items() if any(part in action for part in parts)), REST)
