"""`trainer=fsdp`: weights, gradients, optimizer state and EMA networks are divided among the processes (FSDP2).

Under DDP each process has all of them. Here a process keeps 1/W of every tensor, gathers the weights of a block when
the block computes, and sums its gradients to the process that keeps them. Results and checkpoints are those of DDP.
"""

import copy
import re
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map_only

from ssl_zoo.distributed import whole
from ssl_zoo.learner import Learner
from ssl_zoo.method import Method

_BLOCK = re.compile(r"(.*\.)?(blocks|layers?|layer\d|stages)\.\d+")
"""Names of blocks in timm and transformers; what lies between them is gathered for the whole step."""


def shard(method: nn.Module, mesh: DeviceMesh) -> None:
    """Divides all parameters of `method` along their first dimension, in place; buffers stay whole.

    EMA networks are divided like the networks that they follow, so that their update needs no communication.
    """
    method.to(memory_format=torch.contiguous_format)  # FSDP2 takes no other
    blocks = [module for name, module in method.named_modules() if _BLOCK.fullmatch(name)]
    for module in (*reversed(blocks), method):  # inner ones first
        fully_shard(module, mesh=mesh)


def check_shardable(method: nn.Module, compiled: bool) -> None:
    """Raises ValueError for what `trainer=fsdp` cannot train.

    Args:
        method: as built.
        compiled: whether it will be compiled.
    """
    if scalars := [name for name, parameter in method.named_parameters() if parameter.ndim == 0]:
        raise ValueError(
            f"trainer=fsdp: {type(method).__name__} trains a single number, {scalars[0]}, which FSDP2 cannot divide "
            "among processes. Give trainer=ddp"
        )
    if compiled:
        raise ValueError("trainer.compile=true has not been tried with trainer=fsdp. Leave it out, or give trainer=ddp")


class FullySharded(DDPStrategy):
    """DDP's processes, each with a part of the method; checkpoints are whole, one file, as without it.

    The first process keeps a copy of the method in main memory, for evaluation and export.
    """

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """The weights are divided first."""
        return True

    def configure_ddp(self) -> None:
        """Divides the method, where DDP would wrap it; the optimizer is built after that."""
        learner = self.lightning_module
        assert isinstance(learner, Learner)
        self._whole = copy.deepcopy(learner.method).cpu() if self.is_global_zero else None
        shard(learner.method, init_device_mesh(self.root_device.type, (self.world_size,)))

    def gather_method(self) -> Method:
        """Returns, on the first process, a copy of the method with all weights; to be called by every process."""
        learner = self.lightning_module
        assert isinstance(learner, Learner)
        state = _gather(learner.method.state_dict())
        if self._whole is None:
            return learner.method
        self._whole.load_state_dict(state)
        return self._whole

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Moves the copy that was evaluated back to main memory."""
        if self._whole is not None and next(self._whole.encoder.parameters()).device.type != "cpu":
            self._whole.cpu()

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The whole state, in main memory."""
        assert isinstance(self.lightning_module, LightningModule)
        state: dict[str, Any] = _gather(self.lightning_module.state_dict())
        return state

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Keeps this process's part of a whole state."""
        assert isinstance(self.lightning_module, LightningModule)
        own = self.lightning_module.state_dict()
        state = {name: _divide(value, own.get(name)) for name, value in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(state, strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The whole state, in main memory."""
        state: dict[str, Any] = _gather(optimizer.state_dict())
        return state

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Keeps this process's part of a whole state."""
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            numbers = [number for group in saved["param_groups"] for number in group["params"]]
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            state = {
                number: {key: _divide(value, parameter) for key, value in saved["state"][number].items()}
                for number, parameter in zip(numbers, parameters, strict=True)
                if number in saved["state"]
            }
            optimizer.load_state_dict({**saved, "state": state})

    def teardown(self) -> None:
        """As in Lightning, but weights stay where they are: they can be gathered from there only."""
        assert self.cluster_environment is not None
        assert self.accelerator is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        self.accelerator.teardown()


def whole_method(trainer: Trainer, learner: Learner) -> Method:
    """Returns the method with all weights, on the first process; every process must call it."""
    strategy = trainer.strategy
    return strategy.gather_method() if isinstance(strategy, FullySharded) else learner.method


def _gather(state: Any) -> Any:
    """`state` with whole tensors in main memory in place of divided ones; every process must call it."""
    return tree_map_only(DTensor, lambda tensor: whole(tensor).cpu(), state)


def _divide(value: Any, like: Any) -> Any:
    """`value` as it is, or this process's part of it if it has the shape of `like` and that is divided."""
    if not isinstance(value, Tensor) or not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    # Every process has read the file, so that nothing needs to be sent.
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
