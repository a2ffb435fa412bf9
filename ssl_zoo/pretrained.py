"""Encoders that other libraries provide: `timm:NAME` and `hf:NAME`, ready to use as those of a run.

No code of a repository is run. Without a network, what lies in the cache of the Hugging Face Hub is used.
"""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from timm.data.config import resolve_data_config
from torch import nn

from ssl_zoo import encoder_file
from ssl_zoo.backbones.image import image_backbone
from ssl_zoo.backbones.image_transformers import TransformersImageEncoder
from ssl_zoo.backbones.text import TransformersEncoder
from ssl_zoo.backbones.transformers_config import plain_config, with_sdpa
from ssl_zoo.data.text.tokenizer import TextTokenizer
from ssl_zoo.encoder import Encoder, hash_weights, load

HUB = "hf-hub:"
"""Beginning of timm's names for models of the Hub."""
REMEDY = "Connect to the network once, or set HF_HOME to a cache that has it"


def load_pretrained(name: str) -> Encoder:
    """Loads an encoder of timm or of the Hugging Face Hub, in evaluation mode on the CPU.

    Args:
        name: "timm:NAME", also "timm:hf-hub:USER/MODEL"; or "hf:NAME", a Hub id or the folder of a repository with an
            `encoder.safetensors` of this package or a model of transformers.

    Raises:
        ValueError: if there is no such model, its weights cannot be fetched, or it is no encoder of images or texts.
    """
    origin, _, model = name.partition(":")
    if not model:
        raise ValueError(f"encoder={name}: give a name after the colon, such as timm:resnet18 or hf:user/model")
    return _load_timm(model) if origin == "timm" else _load_hub(model)


def _load_timm(name: str) -> Encoder:
    architecture, arguments = name, {}
    if name.startswith(HUB):
        given = _timm_hub_config(name)
        architecture, arguments = str(given["architecture"]), dict(given.get("model_args") or {})
    if not timm.is_model(architecture):
        image_backbone(architecture, 3, 224, small_stem=False)  # raises, with the nearest names
    try:
        model: Any = timm.create_model(name, pretrained=True, num_classes=0)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"encoder=timm:{name}: its weights are not here, or timm has none ({_first_line(error)}). {REMEDY}"
        ) from error
    about = resolve_data_config(model=model)
    channels, height, width = about["input_size"]
    if height != width:
        raise ValueError(f"encoder=timm:{name}: it is for images of {height}x{width}, and only squares are supported")
    arguments = {"name": architecture, "in_chans": channels, "image_size": height, "small_stem": False, **arguments}
    network = image_backbone(**arguments)
    network.load_state_dict(model.state_dict())
    inputs = {
        "image_size": height,
        "in_chans": channels,
        "mean": list(about["mean"]),
        "std": list(about["std"]),
        "bits": None,
        "interpolation": _interpolation(about["interpolation"]),
        "crop_ratio": about["crop_pct"],
    }
    pooling = getattr(model, "global_pool", None)
    pooling = pooling if isinstance(pooling, str) else getattr(pooling, "pool_type", None)
    licence = model.pretrained_cfg.get("license")
    manifest = _manifest("image", encoder_file.IMAGE_BUILDER, arguments, network, inputs, name, pooling, licence)
    return Encoder(network, manifest).eval()


def _timm_hub_config(name: str) -> dict[str, Any]:
    folder = _fetch(name.removeprefix(HUB), f"timm:{name}", ["config.json"])
    config = _read_json(folder / "config.json", f"timm:{name}")
    if "architecture" not in config:
        raise ValueError(f"encoder=timm:{name}: this repository holds no model of timm. Try encoder=hf:...")
    return config


def _interpolation(name: str) -> str:
    return name if name.upper() in Image.Resampling.__members__ else "bicubic"  # timm's "random"


def _load_hub(name: str) -> Encoder:
    place = Path(name).expanduser()
    folder = place if place.is_dir() else _fetch(name, f"hf:{name}", ["*.json", "*.txt", encoder_file.WEIGHTS_NAME])
    if (own := folder / encoder_file.WEIGHTS_NAME).is_file():
        return load(own)
    config = _read_json(folder / "config.json", f"hf:{name}")
    if "model_type" not in config:
        other = f"a model of timm: give encoder=timm:{HUB}{name}" if "architecture" in config else "of no known kind"
        raise ValueError(f"encoder=hf:{name}: its config.json is {other}")
    model = _transformers_model(name, place if place.is_dir() else name)
    if (folder / "tokenizer.json").is_file() and hasattr(model.config, "vocab_size"):
        return _text_encoder(name, folder, model)
    if (folder / "preprocessor_config.json").is_file() and hasattr(model.config, "num_channels"):
        return _image_encoder(name, folder, model)
    raise ValueError(
        f"encoder=hf:{name}: neither a text encoder with a tokenizer.json nor an image encoder with a "
        "preprocessor_config.json. Choose another repository"
    )


def _transformers_model(name: str, place: Path | str) -> Any:
    try:
        from transformers import AutoModel
    except ImportError as error:
        raise ValueError(f"encoder=hf:{name} needs transformers: pip install 'ssl_zoo[transformers]'") from error
    no_code: Any = {"trust_remote_code": False, "use_safetensors": True}
    try:
        return with_sdpa(partial(AutoModel.from_pretrained, place, dtype=torch.float32, **no_code))
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise ValueError(
            f"encoder=hf:{name}: transformers cannot load its weights ({_first_line(error)}). {REMEDY}, or choose a "
            "repository with safetensors that needs no code of its own"
        ) from error


def _text_encoder(name: str, folder: Path, model: Any) -> Encoder:
    tokenizer = PretrainedTokenizer(folder / "tokenizer.json", model.config.pad_token_id)
    prefix, suffix = tokenizer.added_tokens()
    pool = _pooling(folder, name)
    network = TransformersEncoder(model, pool, False, tokenizer.pad_id, prefix, suffix)
    arguments = {
        "config": plain_config(model.config),
        "pool": pool,
        "pad_id": tokenizer.pad_id,
        "prefix": prefix,
        "suffix": suffix,
    }
    inputs = {"max_length": _max_length(folder, model) - len(prefix) - len(suffix), "replace": {}}
    inputs["tokenizer_hash"] = tokenizer.identity
    manifest = _manifest("text", encoder_file.TRANSFORMERS_BUILDER, arguments, network, inputs, name, pool)
    return Encoder(network, manifest, tokenizer).eval()


def _max_length(folder: Path, model: Any) -> int:
    """Tokens per text: what sentence-transformers or the tokenizer says, at most as many as there are positions."""
    limits = [512]
    for file, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        if (folder / file).is_file():
            limits.append(json.loads((folder / file).read_text()).get(key) or 512)
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(positions, int) and positions > 0:
        roberta = "roberta" in model.config.model_type or model.config.model_type in ("mpnet", "camembert")
        limits.append(positions - (2 if roberta else 0))  # whose positions begin after that of padding
    return min(int(min(limits)), 512)


def _pooling(folder: Path, name: str) -> str:
    """The pooling of sentence-transformers' file, else the mean over all tokens."""
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return "mean"
    settings = json.loads(file.read_text())
    modes = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max"}
    chosen = [key for key, value in settings.items() if key.startswith("pooling_mode") and value is True]
    named = settings.get("pooling_mode")
    pools = [named] if named in modes.values() else [modes.get(key) for key in chosen]
    if len(pools) != 1 or pools[0] is None:
        raise ValueError(f"encoder=hf:{name}: pools by {', '.join(chosen) or named}, not by mean, cls or max alone")
    return str(pools[0])


class PretrainedTokenizer(TextTokenizer):
    """The tokenizer of a pretrained encoder. It need not have its special tokens first, as one to train with must.

    Args:
        path: its tokenizer.json.
        pad_id: of the model's configuration; None: by its name.
    """

    def __init__(self, path: Path, pad_id: int | None):
        self.read(path, path.read_bytes())
        self.pad_id = pad_id if pad_id is not None else self._special_id("[PAD]", "<pad>")
        self.unk_id = self._special_id("[UNK]", "<unk>")

    def added_tokens(self) -> tuple[list[int], list[int]]:
        """The ids that its post-processor puts before and after a text."""
        (text,) = self.encode(["a"])
        whole = self._tokenizer.encode("a", add_special_tokens=True).ids
        start = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text.tolist())
        return whole[:start], whole[start + len(text) :]


def _image_encoder(name: str, folder: Path, model: Any) -> Encoder:
    settings = _read_json(folder / "preprocessor_config.json", f"hf:{name}")
    resized = _side(settings.get("size"))
    crop = _side(settings.get("crop_size")) if settings.get("do_center_crop") else None
    image_size = crop or resized
    if image_size is None:
        raise ValueError(f"encoder=hf:{name}: its preprocessor_config.json names no size of the images")
    channels = model.config.num_channels
    normalized = settings.get("do_normalize", True)
    inputs = {
        "image_size": image_size,
        "in_chans": channels,
        "mean": settings["image_mean"] if normalized else [0.0] * channels,
        "std": settings["image_std"] if normalized else [1.0] * channels,
        "bits": None,
        "interpolation": Image.Resampling(settings.get("resample", Image.Resampling.BILINEAR)).name.lower(),
        "crop_ratio": image_size / resized if crop and resized and resized > image_size else 1.0,
    }
    network = TransformersImageEncoder(model, image_size)
    arguments = {"config": plain_config(model.config), "image_size": image_size}
    pooling = "cls" if network.has_class_token else "avg"
    builder = encoder_file.TRANSFORMERS_IMAGE_BUILDER
    return Encoder(network, _manifest("image", builder, arguments, network, inputs, name, pooling)).eval()


def _side(size: Any) -> int | None:
    """Side of the square, or the shorter side, that an image processor resizes to."""
    if isinstance(size, Mapping):
        size = size.get("shortest_edge", size.get("height"))
    return size if isinstance(size, int) else None


def _manifest(
    modality: str,
    builder: str,
    arguments: dict[str, Any],
    network: nn.Module,
    inputs: dict[str, Any],
    name: str,
    pooling: str | None,
    licence: str | None = None,
) -> dict[str, Any]:
    """The manifest as in `ssl_zoo.encoder_file`; how it was trained is known by its name only."""
    of_network: Any = network
    return {
        "format": encoder_file.FORMAT,
        "version": encoder_file.VERSION,
        "modality": modality,
        "builder": builder,
        "arguments": arguments,
        "num_features": of_network.num_features,
        "pooling": pooling,
        "input": inputs,
        "weights_hash": hash_weights(network.state_dict()),
        "training": {"method": "pretrained", "backbone": name},
        "licence": licence,
    }


def _fetch(repository: str, name: str, patterns: list[str]) -> Path:
    """The folder with the files of a Hub repository that match, from the network or the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(repository, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:  # no network, no such id
        raise ValueError(
            f"encoder={name}: no folder here, and the Hub cannot be asked or has no {repository} "
            f"({_first_line(error)}). {REMEDY}, or check the name"
        ) from error


def _read_json(file: Path, name: str) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"encoder={name}: has no {file.name} that can be read ({_first_line(error)})") from error
    assert isinstance(content, dict)
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
