"""Models of transformers from their configuration alone, without any file or network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from ssl_zoo.backbones.text import TransformersEncoder

UNUSED_SETTINGS = {
    "_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "torch_dtype",
    "transformers_version",
}  # fmt: skip
"""Settings of a transformers configuration that say where it came from, or belong to a classifier."""


def transformers_from_config(
    config: dict[str, Any],
    pool: str = "mean",
    pad_id: int = 0,
    prefix: Sequence[int] = (),
    suffix: Sequence[int] = (),
) -> TransformersEncoder:
    """Creates a Hugging Face encoder with random weights from a configuration, without any file or network.

    Args:
        config: as `PretrainedConfig.to_dict` returns it; `model_type` names the architecture.
        pool: mean, cls or max.
        pad_id: id of padding.
        prefix: see `TransformersEncoder`.
        suffix: see `TransformersEncoder`.

    Raises:
        ValueError: for an architecture that transformers does not have.
    """
    return TransformersEncoder(model_from_config(config), pool, False, pad_id, prefix, suffix)


def model_from_config(config: Mapping[str, Any]) -> Any:
    """Creates a model of transformers with random weights.

    Raises:
        ValueError: for an architecture that transformers does not have.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
    except ImportError as error:
        raise ValueError("this encoder needs transformers: pip install 'ssl_zoo[transformers]'") from error
    settings = dict(config)
    kind = settings.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"the encoder's architecture {kind} is not one of transformers. Update transformers")
    return with_sdpa(partial(AutoModel.from_config, AutoConfig.for_model(kind, **settings)))


def with_sdpa(make: Callable[..., Any]) -> Any:
    """The model that `make` returns, with torch's scaled dot-product attention unless it has no attention for that."""
    try:
        return make(attn_implementation="sdpa")
    except ValueError as error:
        if "scaled_dot_product_attention" not in str(error):
            raise
        return make(attn_implementation="eager")


def plain_config(config: Any) -> dict[str, Any]:
    """What of a transformers configuration determines the network, as `model_from_config` takes it."""
    return {key: value for key, value in config.to_dict().items() if key not in UNUSED_SETTINGS and value is not None}
