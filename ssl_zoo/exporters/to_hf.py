"""For transformers: text encoders that came from it, and image encoders through its wrapper of timm."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_zoo.encoder import Encoder
from ssl_zoo.exporters.base import check_features
from ssl_zoo.exporters.to_timm import export_timm, has_own_stem


def export_hf(encoder: Encoder, folder: Path) -> str:
    """Writes a folder for transformers; returns how to load it."""
    network: Any = encoder.network
    if encoder.modality == "image":
        if has_own_stem(network):
            raise ValueError(
                "format=hf: transformers has no such stem for small images. Give format=timm, torch or onnx"
            )
        export_timm(encoder, folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "model_type": "timm_wrapper"}, indent=1) + "\n")
    elif not hasattr(network, "model"):
        raise ValueError(
            "format=hf: transformers has no such text encoder. Give format=torch or onnx, or train backbone=bert or "
            "modernbert"
        )
    else:
        from transformers import PreTrainedTokenizerFast

        assert encoder.tokenizer is not None
        network.model.save_pretrained(folder)
        (folder / "tokenizer.json").write_bytes(encoder.tokenizer.content)
        roles = {"pad": "pad", "unk": "unk", "cls": "cls", "sep": "sep", "mask": "mask"}
        names = {f"{role}_token": encoder.tokenizer.token(getattr(encoder.tokenizer, f"{role}_id")) for role in roles}
        PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **names).save_pretrained(folder)
    check_features(encoder, _load_hf(encoder, folder), "hf")
    return 'from transformers import AutoModel; model = AutoModel.from_pretrained("<this folder>")'


def _load_hf(encoder: Encoder, folder: Path) -> Callable[[Tensor], Tensor]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, trust_remote_code=False).eval()
    if encoder.modality == "image":
        return lambda x: model(pixel_values=x).pooler_output
    network: Any = encoder.network

    def run(ids: Tensor) -> Tensor:
        valid = network.valid(ids)
        pooled: Tensor = network._pooled(model(input_ids=ids, attention_mask=valid.long()).last_hidden_state, valid)
        return pooled

    return run
