"""The device a run asks for."""

import pytest
import torch

from ssl_zoo.training import environment


def test_the_gpu_must_be_there_to_be_asked_for() -> None:
    if torch.cuda.is_available():
        assert environment.device_type("auto") == "cuda"
    else:
        assert environment.device_type("auto") == environment.device_type("cpu") == "cpu"
        with pytest.raises(ValueError, match=r"trainer\.accelerator=gpu"):
            environment.device_type("gpu")
