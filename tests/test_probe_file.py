"""A probe is read as it was written, and refused where it does not fit."""

from pathlib import Path

import pytest
import torch

from ssl_zoo.evaluators.linear import Linear, Probe, StandardizedProbe
from ssl_zoo.evaluators.proportion import Proportion
from ssl_zoo.probe_file import PROBE_NAME, keep_probe, load_probe
from tests.evaluators.fakes import FakeData, blobs, judge


def kept(folder: Path, weights: str = "ab12") -> StandardizedProbe:
    probe = StandardizedProbe(
        torch.randn(4), torch.rand(4), Probe(torch.randn(3, 4), torch.randn(3), torch.tensor([0, 2, 3]))
    )
    keep_probe(weights, folder, probe, ["a", "b", "c", "d"], "linear probe", Proportion(0.75, 8))
    return probe


def test_round_trip(tmp_path: Path) -> None:
    written = kept(tmp_path)
    read = load_probe(tmp_path / PROBE_NAME, "run", "ab12")
    assert read.class_names == ["a", "c", "d"]  # no training example had the class b
    assert read.about["top1"] == 0.75
    assert read.about["n"] == 8
    x = torch.randn(5, 4)
    assert torch.equal(read.probe.logits(x), written.logits(x))


def test_the_evaluator_leaves_the_probe_that_it_measured() -> None:
    data = FakeData(blobs(60, 6, 3, 0.5), blobs(60, 6, 3, 0.5, seed=1))
    context = judge(data)
    accuracy = Linear([1e-2], 0.2)(context)["linear/top1"]
    predicted = context.probe.probe.classes[context.probe.logits(data.parts["test"][0]).argmax(1)]
    assert (predicted == data.parts["test"][1]).double().mean() == accuracy


def test_what_is_refused(tmp_path: Path) -> None:
    file = tmp_path / PROBE_NAME
    with pytest.raises(ValueError, match=r"no classifier is kept with it .* task=evaluate encoder=run"):
        load_probe(file, "run", "ab12")
    kept(tmp_path)
    with pytest.raises(ValueError, match="features of another encoder than run"):
        load_probe(file, "run", "cd34")
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="damaged"):
        load_probe(file, "run", "ab12")
