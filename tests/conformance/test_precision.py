"""The comparison of bfloat16 with float32 finds what oneDNN leaves unwritten, and nothing else."""

import math

import pytest
import torch
from torch import nn

from ssl_zoo.backbones.image import exact_convolutions
from ssl_zoo.conformance import precision, subjects
from ssl_zoo.conformance.checks import failures


def shrinking(in_chans: int) -> nn.Module:
    """Its last convolution has an input of 1x1 for images of 2x2."""
    layers = [nn.Conv2d(in_chans, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


@pytest.mark.parametrize("method", ["simclr", "simcse"])
def test_the_kits_backbones_have_the_gradients_of_float32(method: str) -> None:
    for subject in subjects.subjects_of(method):
        findings = precision.bf16_gradients(subject)
        assert not failures(findings)
        assert len(findings) == (1 if subject.name.endswith("text") else 3)


def test_unwritten_gradients_are_found_and_mended() -> None:
    images = torch.randn(8, 3, 2, 2)
    network = shrinking(3)
    exact_convolutions(network)
    assert max(precision.bf16_errors(network, images).values()) < precision.BF16_TOLERANCE


def test_a_wrong_gradient_is_found() -> None:
    class Unwritten(nn.Linear):
        """Leaves its gradient as the memory is, in bfloat16 alone."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            if torch.is_autocast_enabled("cpu"):
                self.weight.register_hook(torch.empty_like)
            return out

    errors = precision.bf16_errors(nn.Sequential(nn.Linear(4, 4), Unwritten(4, 4)), torch.randn(8, 4))
    assert errors["0.weight"] < precision.BF16_TOLERANCE
    if precision.platform.libc_ver()[0] == "glibc":
        assert math.isinf(errors["1.weight"])
