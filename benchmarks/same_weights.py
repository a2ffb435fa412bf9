"""Checks that two checkouts train bit-equal weights, with one run of each family of methods in both.

    python benchmarks/same_weights.py OLD NEW

OLD and NEW are checkouts, for example worktrees of git. A refactoring must not change any weight.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

RUN = "logger=csv trainer=cpu evaluators=[] budget.steps=6 seed=1"
SMALL = "backbone=resnet10t +backbone.channels=[16,16,32,32] data.batch_size=32"
VIT = "backbone=vit_tiny +backbone.depth=2 +backbone.embed_dim=48 +backbone.num_heads=3 data.batch_size=32"
TEXT = "backbone=text_tiny backbone.depth=1 backbone.embed_dim=32 data.batch_size=8"
FAMILIES = {
    "contrastive": f"method=simclr {SMALL}",
    "queue": f"method=moco method.queue_size=128 {SMALL}",
    "EMA teacher": f"method=byol {SMALL}",
    "decorrelation": f"method=vicreg {SMALL}",
    "prototypes": f"method=swav method.num_prototypes=32 {SMALL}",
    "self-distillation": f"method=dino method.num_prototypes=32 {VIT}",
    "masked images": f"method=mae {VIT}",
    "masked latents": f"method=ijepa {VIT}",
    "masked text": f"method=mlm data=stdlib_docs {TEXT}",
    "replaced text": f"method=electra data=stdlib_docs {TEXT}",
    "supervised": f"method=supervised {SMALL}",
}
"""Family -> overrides of a run of one of its methods on the embedded data."""


def train(checkout: Path, overrides: str, work: Path) -> dict[str, torch.Tensor]:
    """Trains in `checkout` and returns the weights of the last checkpoint.

    Raises:
        RuntimeError: if the run fails; contains its last output.
    """
    folder = work / "run"
    command = [sys.executable, str(checkout / "run.py"), *RUN.split(), *overrides.split(), f"hydra.run.dir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(checkout), "SSL_ZOO_CACHE": str(work.parent / "cache")}
    ended = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(f"{checkout}: {overrides}: {(ended.stdout + ended.stderr)[-2000:]}")
    last = max((folder / "checkpoints").glob("step-*.ckpt"))
    return torch.load(last, map_location="cpu", weights_only=True)["state_dict"]


def main() -> int:
    """Prints a table; exit status 1 if any family differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    given = parser.parse_args()
    num_different = 0
    print("| family | run | tensors | equal bit for bit |\n|---|---|--:|--:|")
    with tempfile.TemporaryDirectory() as root:
        for family, overrides in FAMILIES.items():
            states = []
            for name in ("old", "new"):
                work = Path(root) / f"{family}-{name}"
                work.mkdir()
                states.append(train(getattr(given, name).resolve(), overrides, work))
            old, new = states
            equal = sum(name in new and torch.equal(value, new[name]) for name, value in old.items())
            num_different += equal != len(old) or len(old) != len(new)
            print(f"| {family} | `{overrides}` | {len(old)} | {equal} |", flush=True)
    return int(num_different > 0)


if __name__ == "__main__":
    sys.exit(main())
