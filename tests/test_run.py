"""The command line end to end: what a run leaves behind, how mistakes end, what a killed run becomes."""

import builtins
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import small_runs
from ssl_zoo import files
from ssl_zoo.report import results
from ssl_zoo.training import checkpoints, hardware
from ssl_zoo.training.loggers import read_metrics
from ssl_zoo.training.saving import PeriodicCheckpoint
from tests.conftest import Ended

QUICK = ("logger=csv", "trainer.accelerator=cpu", "hydra.run.dir=run")


def start(cwd: Path, roots: tuple[Path, Path], *arguments: str) -> subprocess.Popen:
    environment = {k: v for k, v in os.environ.items() if k != "SSL_ZOO_RUN_ID"}
    environment |= {"SSL_ZOO_DATA": str(roots[0]), "SSL_ZOO_CACHE": str(roots[1])}
    environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # so that sums are those of this process, to the bit
    command = [sys.executable, "-m", "ssl_zoo.run", *QUICK, *arguments]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen, seconds: float = 240) -> str:
    out, _ = process.communicate(timeout=seconds)
    return out


NARROW = ("method.hidden_dim=64", "backbone.channels=[16,16,32,32]")


def losses(folder: Path) -> list[float]:
    return [row["train/loss"] for row in read_metrics(folder / "metrics.jsonl").values() if "train/loss" in row]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["method=simclrr"], "method=simclrr: no such choice, did you mean simclr"),
        (["data=cifr10"], "data=cifr10: no such choice, did you mean cifar10"),
        (["metod=byol"], "metod: no such key, did you mean method"),
        (["optimizer.lrr=1"], "optimizer.lrr: no such key, did you mean optimizer.lr"),
        (["data.batchsize=3"], "data.batchsize: no such key, did you mean data.batch_size"),
        (["task=fillmask"], "task=fillmask: no such task, did you mean fill_mask"),
        (["seed=abc"], "seed=abc must be of type int"),
        (["data.batch_size=many"], "data.batch_size=many must be of type int"),
        (["method.temperature=hot"], "method.temperature=hot must be of type float"),
        (["method.temperature=0"], "method.temperature=0 must be a finite number above 0"),
        (["method=byol", "method.ema_decay=1.0"], "method.ema_decay=1.0 must lie between 0 and 1"),
        (["method=mlm", "method.mask_ratio=1.5"], "method.mask_ratio=1.5 must lie between 0 and 1"),
        (["budget.epochs=1", "budget.steps=3"], "exactly one of"),
        (["budget.steps=-3"], "budget.steps=-3 must be a positive number"),
        (["data.batch_size=100000"], "data.batch_size=100000 is more than the 1397 training examples"),
        (["data=folder", "data.path=nowhere"], "data.path=nowhere"),
        (["backbone.name=resnet19"], "backbone.name=resnet19"),
        (["views=plain"], "needs 2 views"),
        (["checkpoint=nowhere"], "checkpoint=nowhere: no such file or folder"),
        (["trainer.accelerator=gpu"], "trainer.accelerator=gpu: no GPU is visible"),
        (["task=fill_mask"], "task=fill_mask needs checkpoint="),
        (["method=supervised", "data=stdlib_docs"], "needs at least 2 classes"),
        (["method=supervised", "data=imdb"], "give data.train_rows=labelled"),
        (["method=simclr", "data=cifar10_captions"], "has no text encoder"),
        (["method=clip", "data=cifar10"], "vocab_size"),
        (["method=mae", "backbone=resnet18"], "backbone=vit_tiny"),
        (["method=clm", "backbone.causal=false"], "backbone.causal"),
        (["evaluators=[zero_shot]"], "method=clip"),
        (["data=folder"], "data.path"),
        (["logger=null"], "logger"),
        (["optimizer.lr=-1"], "optimizer.lr=-1 must be above 0"),
        (["optimizer.betas=[0.9,1.5]"], "optimizer: Invalid beta"),
        (["seed=-1"], "seed=-1: give a whole number from 0"),
        (["data.batch_size=0"], "data.batch_size=0: give a whole number from 1"),
        (
            ["evaluators=[nonsense]"],
            "evaluators=nonsense: no such choice, did you mean knn_spaces? There are: attentive",
        ),
        (["+method.foo=5"], "method: "),
        (["+trainer.max_steps=5"], "trainer.max_steps is no key"),
        (["+trainer.foo=5"], "trainer.foo is no key"),
        (["+trainer.limit_train_batches=0"], "trainer.limit_train_batches is no key"),
        (["+trainer.fast_dev_run=true"], "trainer.fast_dev_run is no key"),
        (["seed=null"], "seed=null must be a whole number"),
        (["data.path=null"], "data.path=null must be text"),
        (["data.batch_size=null"], "data.batch_size=None: give a whole number from 1"),
        (["data.splits=null"], "data.splits=null must be a mapping"),
        (["trainer.accumulate_grad_batches=0"], "trainer.accumulate_grad_batches=0 must be at least 1"),
        (["trainer.accumulate_grad_batches=-2"], "trainer.accumulate_grad_batches=-2 must be at least 1"),
        (["trainer.grad_cache=0"], "trainer.grad_cache=0 must be at least 1"),
        (["trainer.grad_cache=8"], "trainer.grad_cache=8: the backbone has BatchNorm"),
        (["trainer.log_every_n_steps=0"], "trainer.log_every_n_steps=0 must be at least 1"),
        (["trainer.log_every_n_steps=null"], "trainer.log_every_n_steps=null must be a whole number"),
        (["trainer.checkpoint_every=null"], "trainer.checkpoint_every=null must be a whole number"),
        (["trainer.gradient_clip_val=nan"], "trainer.gradient_clip_val=nan must be"),
        (["trainer.gradient_clip_val=-1"], "trainer.gradient_clip_val=-1 must be above 0"),
        (["trainer.evaluate_every=0"], "trainer.evaluate_every=0 must be above 0"),
        (["trainer.evaluate_every=abc"], "trainer.evaluate_every=abc must be a finite number or null"),
        (["schedule.warmup=2"], "schedule.warmup=2"),
        (["schedule.warmup=null"], "schedule.warmup=null must be a finite number"),
        (["+schedule.foo=1"], "schedule: warmup_cosine() got an unexpected keyword argument 'foo'"),
        (["optimizer.lr=inf"], "optimizer.lr=inf must be a finite number"),
        (["optimizer.betas=[0.9]"], "optimizer.betas=[0.9] must be a list of 2"),
        (["backbone.small_stem=maybe"], "backbone.small_stem=maybe must be true or false or null"),
        (["backbone.pretrained=/etc/passwd"], "backbone.pretrained=/etc/passwd: no such file, or not one of weights"),
        (["+backbone.drop_path_rate=2"], "backbone.drop_path_rate=2 is a share to drop"),
        (["backbone.name=null"], "backbone.name=null must be text"),
        (["method=moco", "method.queue_size=16"], "method.queue_size=16 is less than data.batch_size=256"),
        (["method._target_=os.system"], "method._target_: which code runs is not set key by key"),
        (["+evaluators.foo=1"], "evaluators.foo=1: give one of those in conf/evaluators/"),
        (["+budget.hours=2"], "exactly one of epochs, steps, examples, flops, minutes must be set, not budget.hours=2"),
        (["+data.seed=5"], "data.seed is no key"),
        (["+foo=1"], "foo: no such key"),
        (["facts=3"], "facts is what the data turned out to be"),
        (["hydra.run.dir="], "hydra.run.dir=: give a folder for the run alone"),
        (["trainer.precision=foo"], "trainer: Precision 'foo' is invalid"),
        (["trainer.strategy=foo"], "trainer: You selected an invalid strategy name"),
        (["trainer.devices=0"], "trainer: `Trainer(devices=0)`"),
        (["backbone.pretrained=3"], "backbone.pretrained=3: no such file"),
        (["data.splits.train=3"], "data.splits.train=[3]: give the name of a split"),
        (["method=byol", "method.temperature=1"], "the chosen method has no such key. It belongs to method=all4one"),
        (["optimizer.lr=[1"], "optimizer.lr=[1: not of the form key=value"),
        (
            ["method=mlm", "data=cifar10"],
            "method asks for text (facts.mask_id), and this data is images",
        ),
        (
            ["method=mae", "data=stdlib_docs"],
            "backbone asks for images (facts.in_chans), and this data is text",
        ),
        (["method=mlm", "views=simclr"], "views asks for images (facts.image_size)"),
    ],
)
def test_a_mistake_ends_in_one_line_that_names_it(arguments: list[str], said: str, cli: Callable[..., Ended]) -> None:
    if "gpu" in arguments[0] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    given = [quick for quick in QUICK if quick.split("=")[0] not in {a.split("=")[0] for a in arguments}]
    ended = cli(*given, *arguments)
    assert ended.status == 2
    assert said in ended.err
    assert "Traceback" not in ended.out + ended.err
    assert not Path("run/checkpoints").exists()


def test_help_into_a_closed_pipe_ends_without_a_word() -> None:
    command = f"{sys.executable} -m ssl_zoo.run --help | head -1"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(ended.stdout.splitlines()) == 1


def test_a_run_leaves_its_record(cli: Callable[..., Ended]) -> None:
    ended = cli(*QUICK, "budget.steps=12", "evaluators=[knn,linear,spread]", "data.batch_size=32")
    assert ended.status == 0, ended.err
    found = results.read_results(Path("run"))
    assert (found["status"], found["method"], found["data"], found["seed"]) == ("completed", "simclr", "digits", 0)
    assert found["backbone"] == "resnet10t"
    assert found["budget"]["steps"] == 12
    assert found["budget"]["examples"] == 12 * 32
    assert found["budget"]["flops"] > 1e9
    for name in ("knn/top1", "linear/top1", "rankme"):
        assert found["metrics"][name] > 0
        assert found["metrics"][f"init/{name}"] > 0
    assert found["speed"]["examples_per_second"] > 0
    assert found["speed"]["seconds_to_first_step"] > 0
    assert found["config"]["method"]["temperature"] == 0.2
    assert "train/loss" in read_metrics("run/metrics.jsonl")[12]
    state = checkpoints.load_checkpoint(checkpoints.resolve_checkpoint("run"))["state_dict"]
    assert any(key.startswith("method.backbone.") for key in state)

    again = cli(*QUICK, "budget.steps=12", "evaluators=[knn,linear,spread]", "data.batch_size=32")
    assert again.status == 0
    assert "this run is complete" in again.out
    assert cli(*QUICK, "optimizer.lr=fast").status == 2
    assert results.read_results(Path("run")) == found


def test_the_first_minutes(cli: Callable[..., Ended]) -> None:
    """The cost before it starts, one line an evaluation, every accuracy with its n, and a log of a run of few steps."""
    ended = cli(*QUICK, "budget.steps=3", "evaluators=[knn,linear]", "data.batch_size=32")
    assert ended.status == 0, ended.err
    said = ended.out.splitlines()
    (first,) = [line for line in said if line.startswith("simclr on digits (1,397 training examples, 10 classes)")]
    for part in (
        "views digits",
        "resnet10t_half (1.26 M parameters, 0.",
        "GFLOP per example",
        "adamw",
        "3 steps",
        "about ",
    ):
        assert part in first
    evaluated = [line for line in said if "evaluating knn, linear on 400 test examples" in line]
    assert [line.split(":")[0] for line in evaluated] == ["before training", "after training"]
    assert all(line.endswith(" s") for line in evaluated)
    shown = [line.partition("%  ")[2].split("  ")[0] for line in said if "loss" in line]
    assert shown == ["step 1", "step 2", "step 3"]
    assert "nan" not in ended.out
    assert sum("train/loss" in row for row in read_metrics("run/metrics.jsonl").values()) == 3
    found = results.read_results(Path("run"))
    assert found["counts"]["linear/top1"] == found["counts"]["init/knn/top1"] == 400


@pytest.mark.slow
def test_no_name_of_a_class_and_no_terminal_fails_a_finished_run(tmp_path: Path, cache_root: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("test", 4)):
        for name in (b"$5_$10", b"${oc.env:HOME}", b"bad\xffname", "猫".encode(), b"[/red]"):
            folder = Path(os.fsdecode(os.fsencode(tmp_path) + f"/data/{split}/".encode() + name))
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    settings = (
        "data=folder",
        f"data.path={tmp_path}/data",
        "data.image_size=16",
        "data.batch_size=8",
        "budget.steps=1",
    )
    more = ("backbone=resnet10t_half", *NARROW, "evaluators=[knn]", *QUICK)
    environment = os.environ | {"SSL_ZOO_CACHE": str(cache_root), "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "ssl_zoo.run", *settings, *more]
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert results.read_results(tmp_path / "run")["status"] == "completed"
    assert (tmp_path / "run" / "report.png").exists()


def test_a_corrected_command_runs_in_the_folder_of_the_mistake(cli: Callable[..., Ended]) -> None:
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", "budget.steps=2")
    assert cli(*fast, "method.temperature=0").status == 2
    assert results.read_results(Path("run"))["status"] == "failed"
    ended = cli(*fast, "method.temperature=0.1")
    assert ended.status == 0, ended.err
    assert results.read_results(Path("run"))["status"] == "completed"


def test_values_of_another_kind_than_the_default_that_a_key_takes_too(cli: Callable[..., Ended]) -> None:
    fast = (*QUICK, *NARROW, "evaluators=[]", "data.batch_size=512")
    first = cli(*fast, "budget.epochs=0.5", "trainer.devices=auto", "trainer.precision=32", "data.splits.train=train")
    assert first.status == 0, first.err
    (weights,) = Path("run/checkpoints").glob("*.ckpt")
    second = cli(*fast, "budget.steps=1", f"backbone.pretrained={weights}", "hydra.run.dir=second")
    assert second.status == 0, second.err
    assert re.search(r"(\d\d) of \1 tensors match", second.out + second.err)


def test_a_run_folder_that_cannot_be_is_named(cli: Callable[..., Ended]) -> None:
    Path("file").write_text("")
    ended = cli("logger=csv", "hydra.run.dir=file")
    assert ended.status == 2
    assert "hydra.run.dir cannot be made or written" in ended.err


def test_evaluation_changes_nothing_in_training(cli: Callable[..., Ended]) -> None:
    plain = ("budget.steps=6", "data.batch_size=64", "logger=csv", "trainer.accelerator=cpu", *NARROW)
    cli(*plain, "evaluators=[]", "hydra.run.dir=a")
    cli(*plain, "evaluators=[knn,spread]", "trainer.evaluate_every=0.1", "hydra.run.dir=b")
    a, b = (checkpoints.load_checkpoint(checkpoints.resolve_checkpoint(folder))["state_dict"] for folder in ("a", "b"))
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert "eval/knn/top1" in read_metrics("b/metrics.jsonl")[6]


def test_a_folder_with_another_run_is_refused_by_key(cli: Callable[..., Ended]) -> None:
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", *NARROW)
    assert cli(*fast, "budget.steps=4").status == 0
    Path("run/results.json").unlink()
    ended = cli(*fast, "budget.steps=4", "optimizer.lr=0.5")
    assert ended.status == 2
    assert "optimizer.lr=0.5 (was 0.002)" in ended.err


def everything(folder: str) -> dict[str, bytes]:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in files}


def test_a_refused_command_changes_nothing(cli: Callable[..., Ended]) -> None:
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", *NARROW)
    assert cli(*fast, "budget.steps=4").status == 0
    written = [Path("run/.hydra", name).read_text() for name in ("config.yaml", "hydra.yaml", "overrides.yaml")]
    assert "budget.steps=4" in written[2]
    Path("run/.lock").unlink()
    for record in ("completed", None):
        if record is None:
            Path("run/results.json").unlink()
        before = everything("run")
        wrong = ("optimizer.lr=0.5", "optimizer.lr=fast", "budget.steps=3", "method.temperature=0", "data.path=nowhere")
        for override in wrong if record is None else wrong[:2]:
            assert cli(*fast, "budget.steps=4", override).status == 2, override
            assert everything("run") == before, override
    Path("run/checkpoints/step-00000004.ckpt").write_bytes(b"")
    before = everything("run")
    ended = cli(*fast, "budget.steps=4")
    assert ended.status == 2
    assert "all 1 checkpoints of the run there are damaged" in ended.err
    assert everything("run") == before


def test_a_completed_run_goes_on_with_a_longer_budget_and_further_evaluators(cli: Callable[..., Ended]) -> None:
    fast = (*QUICK, "data.batch_size=32", *NARROW)
    full = "trainer.precision=32-true"
    assert cli(*fast, full, "evaluators=[]", "budget.steps=4").status == 0
    more = cli(*fast, full, "evaluators=[knn]", "budget.steps=4")
    assert more.status == 0, more.err
    found = results.read_results(Path("run"))
    assert (found["status"], found["budget"]["steps"]) == ("completed", 4)
    assert {"knn/top1", "init/knn/top1"} <= found["metrics"].keys()
    assert found["speed"]["examples_per_second"] > 0
    longer = cli(*fast, "evaluators=[knn]", "budget.steps=6", "data.num_workers=1", "trainer.precision=bf16-mixed")
    assert longer.status == 0, longer.err
    assert "resumed from step-00000004" in longer.out
    assert "precision: bf16-mixed, before 32-true: batches, views and masks stay the same" in longer.out
    assert "budget.steps=6 (was 4): batches and views stay the same, all schedules follow" in longer.out
    found = results.read_results(Path("run"))
    assert (found["status"], found["budget"]["steps"], found["checkpoint_step"]) == ("completed", 6, 6)
    assert results.read_results(Path("run/results-step-00000004.json"))["status"] == "completed"
    shorter = cli(*fast, "evaluators=[knn]", "budget.steps=5")
    assert shorter.status == 2
    assert "the run in" in shorter.err
    assert "has made 6" in shorter.err


def test_moved_data_resumes_where_its_content_is_the_same(cli: Callable[..., Ended], data_root: Path) -> None:
    texts = [f"text number {number} with some words" for number in range(60)]
    for name, lines in (("one", texts), ("two", texts), ("other", [*texts[1:], "another text"])):
        Path(name).mkdir()
        Path(name, "all.txt").write_text("\n".join(lines))
    fast = (*QUICK, "data=text_folder", "method=mlm", "backbone=text_tiny", "evaluators=[]", "data.batch_size=2")
    fast += (
        "data.documents=line",
        "data.row_length=16",
        "data.tokenizer.vocab_size=300",
        "data.heldout=0.1",
        "trainer.checkpoint_every=2",
    )
    assert cli(*fast, "data.path=one", "budget.steps=2").status == 0
    before = everything("run")
    ended = cli(*fast, "data.path=other", "budget.steps=3")
    assert ended.status == 2
    assert "data.path=other: this is not the data" in ended.err
    assert everything("run") == before
    ended = cli(*fast, "data.path=two", "budget.steps=3")
    assert ended.status == 0, ended.err


def test_an_encoder_goes_on_with_its_own_backbone_and_inputs(cli: Callable[..., Ended]) -> None:
    """Nothing has to be repeated, and what contradicts the checkpoint is refused."""
    fast = ("logger=csv", "trainer.accelerator=cpu", "evaluators=[]", "data.batch_size=32", "budget.steps=2")
    few = ("evaluators.few_labels.labels=[1]", "evaluators.few_labels.draws=2")
    narrow = ("backbone=resnet18", "+backbone.channels=[16,16,32,32]", "backbone.small_stem=false")
    first = cli(*fast, "hydra.run.dir=first", *narrow, "data.image_size=16")
    assert first.status == 0, first.err
    second = cli(*fast, "hydra.run.dir=second", "method=byol", "checkpoint=first", "evaluators=few_labels", *few)
    assert second.status == 0, second.err
    assert "nothing is trained from scratch" in second.out
    assert "checkpoint=first: backbone=resnet18" in second.out
    on_photos = cli(*fast, "hydra.run.dir=third", "data=cifar10", "views=mild", "checkpoint=second")
    assert on_photos.status == 0, on_photos.err
    found = results.read_results(Path("third"))
    assert found["config"]["backbone"]["small_stem"] is False
    assert found["config"]["data"]["image_size"] == 16
    assert found["config"]["data"]["in_chans"] == 1
    for given, trained in (
        ("backbone=resnet10t", "resnet18"),
        ("backbone.small_stem=true", "False"),
        ("data.image_size=32", "16"),
    ):
        ended = cli(*fast, "hydra.run.dir=fourth", given, "checkpoint=first")
        assert ended.status == 2
        said = f"{given.replace('true', 'True')}: the encoder of checkpoint=first was trained with {trained}"
        assert said in ended.err
    assert "is for images" in cli(*fast, "hydra.run.dir=fourth", "method=mlm", "checkpoint=first").err


def test_a_text_encoder_goes_on_with_its_own_tokenizer(cli: Callable[..., Ended]) -> None:
    fast = ("logger=csv", "trainer.accelerator=cpu", "evaluators=[]", "data.batch_size=8", "budget.steps=1")
    first = cli(*fast, "hydra.run.dir=first", "method=mlm", "backbone.depth=1", "data.tokenizer.vocab_size=512")
    assert first.status == 0, first.err
    second = cli(*fast, "hydra.run.dir=second", "method=simcse", "data=imdb", "checkpoint=first")
    assert second.status == 0, second.err
    assert Path("second/tokenizer.json").read_bytes() == Path("first/tokenizer.json").read_bytes()
    backbone = results.read_results(Path("second"))["config"]["backbone"]
    assert (backbone["depth"], backbone["proj_drop_rate"]) == (1, 0.1)  # dropout is the method's
    other = cli(
        *fast, "hydra.run.dir=third", "data=imdb", "method=mlm", "checkpoint=first", "data.tokenizer.vocab_size=512"
    )
    assert other.status == 2
    assert "data.tokenizer: it is not the one that checkpoint=first was trained with" in other.err
    Path("first/tokenizer.json").write_bytes(Path("first/tokenizer.json").read_bytes() + b" ")
    filled = cli("task=fill_mask", "checkpoint=first", "text=a [MASK]", "hydra.run.dir=fill")
    assert "is not the tokenizer of checkpoint=first" in filled.err


def test_a_masked_token_run_fills_in_blanks(cli: Callable[..., Ended]) -> None:
    small = ("backbone.depth=1", "evaluators=[]", "data.batch_size=8", "budget.steps=2")
    assert cli(*QUICK, "method=mlm", *small).status == 0
    ended = cli("task=fill_mask", "checkpoint=run", "text=It's a [MASK], isn't it?", "hydra.run.dir=fill")
    assert ended.status == 0, ended.err
    assert "probability" in ended.out
    assert ended.out.count("%") == 5
    kept = checkpoints.load_checkpoint(checkpoints.resolve_checkpoint("run"))["ssl_zoo"]["card"]
    assert kept["choices"] == {"method": "mlm", "backbone": "text_tiny"}
    assert cli("task=fill_mask", "checkpoint=run", "text=no blank", "hydra.run.dir=fill").status == 2
    assert cli(*QUICK[:2], *NARROW, "evaluators=[]", "budget.steps=1", "hydra.run.dir=simclr").status == 0
    Path("run/tokenizer.json").rename("elsewhere.json")
    assert "tokenizer" in cli("task=fill_mask", "checkpoint=run", "text=a [MASK]", "hydra.run.dir=fill").err
    other = cli("task=fill_mask", "checkpoint=simclr", "text=a [MASK]", "hydra.run.dir=fill")
    assert "is not a masked-token model" in other.err


def test_a_nan_is_a_failure_on_record(cli: Callable[..., Ended]) -> None:
    ended = cli(
        *QUICK, "evaluators=[]", "data.batch_size=32", "budget.steps=50", "optimizer.lr=1e30", "schedule.warmup=0.01"
    )
    assert ended.status == 1
    assert "The weights were not updated" in ended.err
    found = results.read_results(Path("run"))
    assert found["status"] == "failed"
    assert found["error"]["type"] in ("NonFiniteLoss", "NonFiniteWeights")


def test_a_run_that_cannot_save_its_last_weights_is_no_completed_run(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", "budget.steps=4", "trainer.checkpoint_every=2", *NARROW)
    sound = torch.save

    def full(obj: Any, file: Any) -> None:
        if obj["global_step"] == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sound(obj, file)

    with monkeypatch.context() as disk:
        disk.setattr(torch, "save", full)
        ended = cli(*fast)
    assert ended.status == 1
    assert "The weights of step 4 are lost" in ended.err
    assert "Traceback" not in ended.err
    assert results.read_results(Path("run"))["status"] == "interrupted"
    again = cli(*fast)
    assert again.status == 0, again.err
    assert "resumed from step-00000002" in again.out
    found = results.read_results(Path("run"))
    assert (found["status"], found["checkpoint_step"]) == ("completed", 4)
    Path("run/checkpoints/step-00000004.ckpt").unlink()
    refused = cli(*fast, "hydra.run.dir=next", "checkpoint=run")
    assert refused.status == 2
    assert "last checkpoint, of step 4, is missing or damaged" in refused.err


def test_what_was_measured_at_a_checkpoint_outlives_a_kill_right_after_it(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = ("logger=csv", "trainer.accelerator=cpu", "evaluators=[]", "data.batch_size=8", "budget.steps=4")
    fast += ("trainer.checkpoint_every=2", "trainer.log_every_n_steps=1", "hydra.run.dir=run", *NARROW)
    save = PeriodicCheckpoint._save

    def save_and_die(*arguments: Any) -> None:
        save(*arguments)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(PeriodicCheckpoint, "_save", save_and_die)
        assert cli(*fast).status == 1
    assert list(read_metrics("run/metrics.jsonl")) == [1, 2]
    assert "resumed from step-00000002" in cli(*fast).out
    rows = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]


@pytest.fixture
def roots(data_root: Path, cache_root: Path) -> tuple[Path, Path]:
    return data_root, cache_root


def until(happened: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["byol", "mlm"])
def test_a_run_killed_mid_epoch_resumes_bit_for_bit(
    method: str, tmp_path: Path, roots: tuple[Path, Path], cli: Callable[..., Ended]
) -> None:
    small_runs.prepare(tmp_path)
    settings = (*small_runs.METHODS[method].split(), "trainer.checkpoint_every=4", "trainer.log_every_n_steps=1")
    whole = cli(*settings, "hydra.run.dir=whole")
    assert whole.status == 0, whole.err

    victim = start(tmp_path, roots, *settings)
    until(lambda: any((tmp_path / "run" / "checkpoints").glob("step-*.ckpt")) or victim.poll() is not None)
    victim.send_signal(signal.SIGKILL)
    said = finish(victim)
    step = checkpoints.step_of(checkpoints.resolve_checkpoint(tmp_path / "run"))
    assert 0 < step < small_runs.STEPS, said
    left = results.read_results(tmp_path / "run")
    assert (left["status"], left["method"], left["seed"]) == ("running", method, 0)

    assert f"resumed from step-{step:08d}" in cli(*settings, "hydra.run.dir=run").out
    assert small_runs.difference(tmp_path / "run", tmp_path / "whole") is None
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")


@pytest.mark.slow
def test_a_terminated_run_saves_and_says_so(tmp_path: Path, roots: tuple[Path, Path]) -> None:
    settings = ("evaluators=[]", "data.batch_size=32", "budget.steps=2000", "trainer.checkpoint_every=5", *NARROW)
    process = start(tmp_path, roots, *settings)
    until(lambda: any((tmp_path / "run" / "checkpoints").glob("step-*.ckpt")))
    process.send_signal(signal.SIGTERM)
    out = finish(process)
    assert process.returncode == 128 + signal.SIGTERM, out
    assert results.read_results(tmp_path / "run")["status"] == "interrupted"
    checkpoints.verify_checkpoint(checkpoints.resolve_checkpoint(tmp_path / "run"))


@pytest.mark.slow
def test_a_signal_while_the_data_is_prepared_is_recorded(tmp_path: Path, roots: tuple[Path, Path]) -> None:
    process = start(tmp_path, roots, "evaluators=[]", "budget.steps=2000")
    until((tmp_path / "run" / "results.json").exists)
    process.send_signal(signal.SIGUSR2)
    out = finish(process)
    assert process.returncode == 128 + signal.SIGUSR2, out
    assert results.read_results(tmp_path / "run")["status"] == "interrupted"
    assert "SIGUSR2: " in out


@pytest.mark.slow
def test_two_cpu_processes_train_one_run(tmp_path: Path, roots: tuple[Path, Path], cli: Callable[..., Ended]) -> None:
    settings = (
        "data.batch_size=64",
        "budget.steps=8",
        "evaluators=[knn]",
        "trainer.precision=32-true",
        "optimizer=sgd",  # AdamW divides rounding errors by the gradient's size where that is nearly zero
        "trainer.log_every_n_steps=1",
        *NARROW,
    )
    one = cli(*QUICK, *settings, "hydra.run.dir=one")
    two = finish(start(tmp_path, roots, *settings, "trainer=ddp_cpu", "trainer.accelerator=cpu", "hydra.run.dir=two"))
    assert (tmp_path / "two" / "results.json").exists(), two
    a, b = (results.read_results(tmp_path / name) for name in ("one", "two"))
    assert (a["environment"]["processes"], b["environment"]["processes"]) == (1, 2)
    one_loss, two_loss = (losses(tmp_path / name) for name in ("one", "two"))
    assert len(one_loss) == len(two_loss) == 8, one.err
    # The first loss is that of the same weights and batch. Later a ReLU input within rounding of 0 may fall on either
    # side, which moves the weights a little; that the gradients agree is what test_methods_distributed.py shows.
    assert two_loss[0] == pytest.approx(one_loss[0], rel=1e-5)
    assert two_loss == pytest.approx(one_loss, rel=2e-2)


def lose_the_end(folder: Path, kept: str) -> None:
    """As if the run had been killed after it had saved `kept`."""
    for path in (folder / "checkpoints").iterdir():
        if path.name != kept:
            path.unlink()
    (folder / "results.json").unlink()


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, roots: tuple[Path, Path], cli: Callable[..., Ended]
) -> None:
    """From 1 to 2 and back: the same batches and views, so the same losses but for rounding; the difference is said."""
    settings = ("data.batch_size=64", "budget.steps=9", "trainer.checkpoint_every=3", "trainer.log_every_n_steps=1")
    settings += ("evaluators=[]", "trainer.precision=32-true", "optimizer=sgd", *NARROW)
    two = ("trainer=ddp_cpu", "trainer.accelerator=cpu")
    assert cli(*QUICK, *settings, "hydra.run.dir=whole").status == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    lose_the_end(tmp_path / "run", "step-00000006.ckpt")
    out = finish(start(tmp_path, roots, *settings, *two))
    assert "processes: 2, before 1: batches and views stay the same; masks and dropout are sampled per process" in out
    assert "so the result is not bit for bit" in out
    assert results.read_results(tmp_path / "run")["environment"]["processes"] == 2
    shutil.copytree(tmp_path / "run", tmp_path / "back")
    lose_the_end(tmp_path / "back", "step-00000009.ckpt")
    assert "processes: 1, before 2: " in cli(*QUICK, *settings, "hydra.run.dir=back").out
    assert results.read_results(tmp_path / "back")["status"] == "completed"
    whole, mixed, back = (losses(tmp_path / name) for name in ("whole", "run", "back"))
    assert mixed[:6] == whole[:6]
    assert mixed[6] == pytest.approx(whole[6], rel=1e-4)
    assert mixed[6:] == pytest.approx(whole[6:], rel=2e-2)
    assert back == mixed


@pytest.mark.slow
def test_a_killed_process_ends_the_run_by_name_and_signal(tmp_path: Path, roots: tuple[Path, Path]) -> None:
    settings = ("data.batch_size=32", "budget.steps=5000", "trainer.checkpoint_every=2", "evaluators=[]", *NARROW)
    process = start(tmp_path, roots, *settings, "trainer=ddp_cpu", "trainer.accelerator=cpu")
    until(lambda: any((tmp_path / "run" / "checkpoints").glob("step-*.ckpt")))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = (int(pid) for pid in children if b"train_ddp_process_1" in Path(f"/proc/{pid}/cmdline").read_bytes())
    os.kill(other, signal.SIGKILL)
    out = finish(process)
    assert process.returncode == 1, out
    assert f"error: rank 1 of 2 (process {other}) was killed by SIGKILL" in out
    assert "Traceback" not in out
    left = results.read_results(tmp_path / "run")
    assert (left["status"], left["error"]["type"]) == ("failed", "ProcessDied")


def test_a_run_is_completed_only_with_its_picture_and_its_last_metrics(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = (*QUICK, "evaluators=[knn]", "data.batch_size=32", "budget.steps=2", *NARROW)
    open_file, replace = builtins.open, files.write_atomically

    def full(path: Any) -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def refused_rows(path: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
        if (
            str(path).endswith("metrics.jsonl")
            and mode == "ab"
            and "step-00000002.ckpt" in os.listdir("run/checkpoints")
        ):
            raise full(path)
        return open_file(path, mode, *args, **more)

    def refused_picture(path: Any, content: Any) -> None:
        if str(path).endswith("report.png"):
            raise full(path)
        replace(path, content)

    for place, name, instead in ((builtins, "open", refused_rows), (files, "write_atomically", refused_picture)):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, instead)
            ended = cli(*fast)
        assert ended.status == 1
        assert "No space left on device" in ended.err
        assert results.read_results(Path("run"))["status"] == "interrupted"
    assert cli(*fast).status == 0
    assert results.read_results(Path("run"))["status"] == "completed"
    assert Path("run/report.png").exists()
    last = read_metrics("run/metrics.jsonl")[2]
    assert last["test/knn/top1"] == pytest.approx(results.read_results(Path("run"))["metrics"]["knn/top1"])


def test_a_bf16_run_that_goes_on_without_bf16_says_so(
    cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", "trainer.precision=auto", *NARROW)
    monkeypatch.setattr(hardware, "choose_precision", lambda *_: ("bf16-mixed", "as on one machine"))
    assert cli(*fast, "budget.steps=2").status == 0
    monkeypatch.setattr(hardware, "choose_precision", lambda *_: ("32-true", "as on another"))
    ended = cli(*fast, "budget.steps=3")
    assert ended.status == 0, ended.err
    assert (
        "precision: 32-true, before bf16-mixed: batches, views and masks stay the same, rounding does not" in ended.out
    )
    assert "so the result is not bit for bit" in Path("run/run.log").read_text()


def test_a_cache_that_was_zeroed_is_not_trained_on(cli: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_ZOO_CACHE", "cache")
    fast = (*QUICK, "evaluators=[]", "data.batch_size=32", "budget.steps=1", *NARROW)
    cli(*fast)
    (pixels,) = Path("cache/decoded").glob("*/train.pixels")
    content = pixels.read_bytes()
    pixels.write_bytes(bytes(len(content)))
    ended = cli(*fast, "hydra.run.dir=again")
    assert ended.status == 0
    assert "is damaged: the content of train.pixels has changed. It is built again" in ended.out
    assert "is damaged: the content of train.pixels" in Path("again/run.log").read_text()
    assert pixels.read_bytes() == content


def test_the_default_configuration_is_the_contract() -> None:
    """The names people script against."""
    from hydra import compose, initialize_config_dir

    from ssl_zoo.config import CONF

    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config")
    assert set(cfg) >= {
        "method",
        "backbone",
        "data",
        "views",
        "optimizer",
        "trainer",
        "evaluators",
        "logger",
        "task",
        "seed",
    }
    assert set(cfg.budget) == {"epochs", "steps", "examples", "flops", "minutes"}
    assert {"name", "small_stem"} <= set(cfg.backbone)
    assert {"path", "batch_size"} <= set(cfg.data)
    assert "checkpoint_every" in cfg.trainer
    assert "checkpoint" in cfg


def test_minutes_end_a_run_of_unlabelled_text(cli: Callable[..., Ended]) -> None:
    """With the evaluators that such a run has by itself."""
    small = ("data.batch_size=8", "data.eval_examples=40", "data.eval_rows=64", "trainer.accelerator=cpu")
    ended = cli("method=mlm", "budget.minutes=0.03", "logger=csv", "hydra.run.dir=run", *small)
    assert ended.status == 0, ended.err
    found = results.read_results(Path("run"))
    assert found["budget"]["kind"] == "minutes"
    assert found["budget"]["seconds"] >= 1.8
    assert {"rankme", "init/rankme", "mask/top1"} <= found["metrics"].keys()
