"""The choices made for the processor."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import timm.layers

from ssl_zoo.training import hardware


def test_a_wish_is_kept_and_auto_has_a_reason() -> None:
    assert hardware.choose_precision("32-true", "cpu") == ("32-true", "as asked")
    precision, why = hardware.choose_precision("auto", "cpu")
    assert precision == ("bf16-mixed" if hardware.has_fast_bf16() else "32-true")
    assert "bfloat16" in why


def test_bf16_without_hardware_for_it_is_done_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "has_fast_bf16", lambda: False)
    said = "as asked; there is no bfloat16 here, so it is emulated"
    assert hardware.choose_precision("bf16-mixed", "cpu") == ("bf16-mixed", said)
    assert hardware.choose_precision("auto", "cpu")[0] == "32-true"


def test_a_processor_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hardware.processor_name()
    monkeypatch.setattr(Path, "exists", lambda path: False)  # no Linux
    assert hardware.processor_name() == platform.machine()


def test_attention_is_explicit_for_bf16_on_a_cpu_only() -> None:
    hardware.prepare_torch("cpu", "bf16-mixed")
    assert not timm.layers.use_fused_attn()
    hardware.prepare_torch("cpu", "32-true")
    assert timm.layers.use_fused_attn()


def test_the_allocator_keeps_freed_memory() -> None:
    """After freeing 64 MB the process keeps it, so that the next step does not fault the pages in again."""
    code = (
        "from ssl_zoo.training import hardware; hardware.tune_allocator(); import torch, resource\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "torch.ones(2**24); torch.ones(2**24); before = faults()\n"
        "for _ in range(5): torch.ones(2**24)\n"
        "print(faults() - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(out.stdout) < 16384  # one array's pages; five arrays' without it
