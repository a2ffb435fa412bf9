"""The appendix says what the records know, and that the rest is unknown."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ssl_zoo.report.appendix import answer, count_parameters
from ssl_zoo.report.report import compare_folders
from tests.report.records import save_run, save_sweep


def answers(folder: Path, **arguments: Any) -> dict[str, str]:
    return {each.item: each.text for each in answer(compare_folders(folder, **arguments).comparison)}


def test_parameters_are_counted_without_buffers(tmp_path: Path) -> None:
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Linear(8, 2))
    save_file(network.state_dict(), tmp_path / "encoder.safetensors")
    assert count_parameters(tmp_path) == sum(parameter.numel() for parameter in network.parameters())
    (tmp_path / "encoder.safetensors").write_bytes(b"\xff" * 20)
    assert count_parameters(tmp_path) is None
    assert count_parameters(tmp_path / "none") is None


def test_what_the_records_know(tmp_path: Path) -> None:
    save_sweep(tmp_path, 9)
    save_run(tmp_path / "one", "mae", 5, started=1000.0, finished=4600.0)
    found = answers(tmp_path)
    assert found["Seeds"] == "moco, mae, supervised, barlow_twins, dino, byol, vicreg, simclr: 0, 1; mae: 5."
    assert found["Search budget"].startswith("In these folders: mae on cifar10: 2 settings; simclr on cifar10: 2 ")
    assert (
        "cifar10: 50,000 training, 10,000 test examples, splits train = train and test = test"
        in (found["Data and its splits"])
    )
    assert "chosen on 0.2 of the training split" in found["Selection of epochs and of probes"]
    # 9 rows of 2 runs with 1 to 8 TFLOP and once more 1, and one run of 7
    total = f"{(2 * (36 + 1) + 7) * 1e12:.3g}"
    assert found["Compute in total"] == (
        f"19 completed runs: {19 * 61.5 / 3600:.3g} hours of training, {total} FLOPs. "
        "1 hours from start to end of 1 of 20 runs, evaluation included."
    )
    assert found["Compute per run"].startswith("61.5 seconds and 1e+12 to 8e+12 FLOPs of training")
    assert found["Runs left out"] == "1 failed; see Not completed."
    assert found["Pretrained weights"].startswith("None")
    assert found["Hardware"] == "2 cores, 32-true."
    assert found["Software and versions"] == "ssl_zoo at commit 1a2b, torch 2.15.0, Python 3.11.7."


def test_what_is_not_known_has_no_answer(tmp_path: Path) -> None:
    save_run(tmp_path / "0", "simclr", 0, config={}, environment={}, budget={"kind": "steps", "value": 1}, metrics={})
    found = answers(tmp_path)
    for item in ("Licences of data", "Number of parameters", "Hardware", "Compute in total", "Data and its splits",
                 "Pretrained weights", "Use of AI assistants", "Compute per run"):  # fmt: skip
        assert found[item] == "", item
    assert found["Error bars and tests"].startswith("One run per row")
