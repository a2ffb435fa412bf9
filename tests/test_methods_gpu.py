"""One step of every method on a GPU: the loss and gradients of the CPU, and no wait for the device. By existing."""

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from ssl_zoo.conformance import checks, subjects
from ssl_zoo.conformance.subjects import Subject
from ssl_zoo.method import Batch, Method

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

WAITS = {"ijepa", "mmcr", "wmse"}
"""Methods that need an answer of the device: the size of I-JEPA's blocks decides shapes; the singular value and the
Cholesky decomposition report whether they succeeded."""


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    yield
    torch.backends.cudnn.allow_tf32 = before[0]
    torch.set_float32_matmul_precision(before[1])


def built(subject: Subject, device: str) -> tuple[Method, Batch]:
    views, labels, indices = subject.batch(0)
    batch = Batch([view.to(device) for view in views], labels.to(device), indices.to(device))
    return subject.build(checks.SEED).to(device), batch


def gradients(subject: Subject, device: str, seed: int = 0) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss and the gradients of a first step, on the CPU."""
    method, batch = built(subject, device)
    torch.manual_seed(seed)
    loss = method(batch, 0.5)["loss"]
    loss.backward()
    found = {name: p.grad.cpu() for name, p in method.named_parameters() if p.grad is not None}
    return loss.detach().cpu(), found


@pytest.mark.parametrize("method", subjects.method_names())
def test_a_gpu_finds_what_the_cpu_finds(method: str) -> None:
    for subject in subjects.subjects_of(method):
        loss, expected = gradients(subject, "cpu")
        seen, found = gradients(subject, "cuda")
        assert found.keys() == expected.keys()
        assert all(gradient.isfinite().all() for gradient in found.values())
        if torch.equal(loss, gradients(subject, "cpu", seed=1)[0]):  # else the step's own draws differ
            torch.testing.assert_close(seen, loss, rtol=1e-4, atol=1e-5)
            largest = max(gradient.abs().max() for gradient in expected.values())
            worst = max((found[name] - gradient).abs().max() for name, gradient in expected.items())
            assert worst < 1e-3 * largest


@pytest.mark.parametrize("method", sorted(set(subjects.method_names()) - WAITS))
def test_a_step_does_not_wait_for_the_gpu(method: str) -> None:
    """A step that waits leaves the GPU idle while the host prepares what comes next."""
    for subject in subjects.subjects_of(method):
        module, batch = built(subject, "cuda")
        optimizer = checks.plain_sgd(module)
        for waiting in ("default", "warn"):  # the first step allocates and initialises
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode(waiting)
                try:
                    with torch.autocast("cuda", dtype=torch.bfloat16):
                        loss = module(batch, 0.5)["loss"]
                    loss.backward()
                    optimizer.step()
                    with torch.no_grad():
                        module.after_step(0.5)
                finally:
                    torch.cuda.set_sync_debug_mode("default")
        waits = [f"{w.filename}:{w.lineno}" for w in told if "synchroniz" in str(w.message)]
        assert not waits, f"{subject.name} waits at {waits}"
