"""The device a run asks for."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
import pytest
import torch
from torch import nn
from ssl_zoo.evaluators.base import Features
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.methods.simclr import SimCLR
from ssl_zoo.methods.supervised import Supervised
from ssl_zoo.report import results
from ssl_zoo.tasks import pretrain
from ssl_zoo.training import checkpoints, environment, summary
from ssl_zoo.training.checkpoints import KEYS, SafeCheckpointIO



def test_the_gpu_must_be_there_to_be_asked_for() -> None:
    if torch.cuda.is_available():
        assert environment.device_type("auto") == "cuda"
    else:
        assert environment.device_type("auto") == environment.device_type("cpu") == "cpu"
        with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu"):
            environment.device_type("gpu")
