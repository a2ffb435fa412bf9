"""Process and processor settings that affect speed; call them before or right after importing torch."""

import ctypes
import os
import platform
from pathlib import Path


def tune_allocator() -> None:
    """Keeps freed memory in the process and requests huge pages; call before torch is imported.

    glibc returns large blocks to the kernel on every free, so each step faults the same pages in again; for a ResNet-18
    with a CIFAR stem this took a quarter of the step. Increases resident memory. No effect without glibc.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    libc = ctypes.CDLL(None)
    m_trim_threshold, m_mmap_max = -1, -4  # from malloc.h
    libc.mallopt(m_mmap_max, 0)
    libc.mallopt(m_trim_threshold, 2**31 - 1)


def processor_name() -> str:
    """Returns the processor's model name from /proc/cpuinfo, or its architecture where that does not exist."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def has_fast_bf16() -> bool:
    """Whether this processor multiplies bfloat16 matrices in hardware (AVX512-BF16 or AMX)."""
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_precision(wanted: str | int, device_type: str) -> tuple[str, str]:
    """Returns the precision for the Trainer and the reason for it; `wanted` is returned unless it is "auto"."""
    import torch

    on_gpu = device_type == "cuda"
    bf16 = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else has_fast_bf16()
    if wanted != "auto":
        is_emulated = str(wanted).startswith("bf16") and not bf16
        return str(wanted), "as asked; there is no bfloat16 here, so it is emulated" if is_emulated else "as asked"
    if on_gpu:
        return ("bf16-mixed", "the GPU has bfloat16") if bf16 else ("16-mixed", "the GPU has no bfloat16")
    if device_type == "cpu" and bf16:
        return "bf16-mixed", "the processor has bfloat16 instructions"
    return "32-true", "no bfloat16 instructions here"


def prepare_torch(device_type: str, precision: str) -> None:
    """Selects the attention kernel of timm models built afterwards, and TF32 for float32 matrix products on GPUs."""
    import timm.layers
    import torch

    # On CPUs the backward pass of fused attention is slow in bfloat16 for short sequences: with explicit products a
    # step of a ViT-tiny with 64 patches takes 0.6 of the time.
    timm.layers.set_fused_attn(not (device_type == "cpu" and precision.startswith("bf16")))
    torch.set_float32_matmul_precision("high" if device_type == "cuda" else "highest")
