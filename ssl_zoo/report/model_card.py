"""The README.md of an exported encoder, in the form of a model card of the Hugging Face Hub."""

from collections.abc import Mapping
from typing import Any

TASK_OF = {"image": "image-feature-extraction", "text": "feature-extraction"}
"""The Hub's name of what an encoder does, by modality."""
LIBRARY_OF = {"timm": "timm", "hf": "transformers", "onnx": "onnx", "torch": "pytorch"}
"""The Hub's name of the library, by format."""


def model_card(manifest: Mapping[str, Any], kind: str, usage: str) -> str:
    """Describes an encoder: how to load it, its inputs, how it was trained and how well it was evaluated.

    Args:
        manifest: see `ssl_zoo.encoder_file`.
        kind: the format of the export.
        usage: the line of Python that loads it.

    Returns:
        Markdown with the Hub's header.
    """
    training = manifest.get("training") or {}
    method, data = (training.get(key) or "unknown" for key in ("method", "data"))
    header = {
        "library_name": LIBRARY_OF[kind],
        "pipeline_tag": TASK_OF[manifest["modality"]],
        "license": manifest.get("licence") or "unknown",
        "tags": "[self-supervised-learning, ssl_zoo]",
    }
    lines = ["---", *(f"{key}: {value}" for key, value in header.items()), "---", ""]
    kind_of_input = {"image": "images", "text": "texts"}[manifest["modality"]]
    about = f"An encoder of {kind_of_input} with {manifest['num_features']} features, trained by ssl_zoo with {method}."
    lines += [f"# {method} on {data}", "", about, ""]
    lines += ["```python", usage, "```", "", "## Inputs", ""]
    lines += [f"- {key}: {value}" for key, value in manifest["input"].items()]
    lines += ["", "## Training", ""]
    budget = {key: value for key, value in (training.get("budget") or {}).items() if value is not None}
    facts = {**{key: training.get(key) for key in ("method", "data", "backbone", "seed")}, **budget}
    lines += [f"- {key}: {value}" for key, value in facts.items() if value is not None]
    if overrides := training.get("overrides"):
        lines += ["", "```bash", f"python run.py {' '.join(overrides)}", "```"]
    metrics = {key: value for key, value in (training.get("metrics") or {}).items() if value is not None}
    if metrics:
        lines += [
            "",
            "## Evaluation of the frozen encoder",
            "",
            "| metric | random weights | trained |",
            "| --- | ---: | ---: |",
        ]
        for key in sorted(key for key in metrics if not key.startswith("init/")):
            before = metrics.get(f"init/{key}")
            lines.append(f"| {key} | {'' if before is None else f'{before:.4g}'} | {metrics[key]:.4g} |")
        lines += ["", "Accuracies are fractions, on the test split of the data above."]
    return "\n".join(lines) + "\n"
