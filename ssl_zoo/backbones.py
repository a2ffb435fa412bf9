"""Networks by name: any timm model for images, the blocks of any timm ViT for text, Hugging Face encoders as an extra.

An image backbone maps (B, C, H, W) to (B, D); a text backbone maps ids (B, L) to (B, D) and, by `forward_tokens`, to
(B, L, D). Both give D as `num_features`. Letters: B batch, C H W image, L length, D width.
"""

import difflib
import inspect
import logging
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.layers import RotaryEmbeddingCat
from timm.models import is_model_in_modules, load_state_dict
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

log = logging.getLogger(__name__)


def image_backbone(
    name: str,
    in_chans: int,
    image_size: int,
    small_stem: bool | None = None,
    pretrained: bool | str = False,
    **timm_kwargs: Any,
) -> nn.Module:
    """A timm image model without its classifier: (B, in_chans, image_size, image_size) float -> (B, D).

    small_stem: keep the resolution that a stem made for 224 pixels throws away; None means "up to 64 pixels".
        ResNet: 3x3 stride-1 convolution, no max-pool. ConvNeXt: 2x2 patches, not 4x4. ViT: patches that leave about
        8x8 tokens. Other families have no agreed small stem and are refused.
    pretrained: True loads timm's weights from the hub; a path loads a safetensors or torch file (`load_weights`).
    timm_kwargs: anything the model takes, such as `drop_path_rate` or `patch_size`.

    Raises ValueError for an unknown name or option, a small stem nobody defined, images too small, missing weights.
    """
    small = image_size <= 64 if small_stem is None else small_stem
    cfg = timm.get_pretrained_cfg(name.partition(".")[0])
    if cfg is not None and cfg.fixed_input_size:
        timm_kwargs = {"img_size": image_size} | timm_kwargs
    is_vit = is_model_in_modules(name, {"vision_transformer", "eva", "deit", "beit"})
    if small and is_vit:
        timm_kwargs = {"patch_size": _patch_size(image_size)} | timm_kwargs
    model = _create("backbone.name", name, pretrained is True, {"in_chans": in_chans, **timm_kwargs})
    if small and not is_vit:
        _shrink_stem(model, name)
    if small:
        log.info("backbone.name=%s: small stem for images of %d pixels", name, image_size)
    if isinstance(pretrained, str):
        load_weights(model, pretrained)
    model.num_features = _feature_width(model, name, in_chans, image_size)
    return model


def _create(key: str, name: str, pretrained: bool, kwargs: dict[str, Any]) -> Any:
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4)
        raise ValueError(f"{key}={name}: timm has no such model. Nearest names: {', '.join(near) or 'none'}.")
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=0, **kwargs)
    except (TypeError, AssertionError, OSError, RuntimeError) as error:  # timm hands options on unchecked
        hint = " Weights come from the Hugging Face hub; without it, give a local file as backbone.pretrained."
        raise ValueError(f"{key}={name} with {kwargs}: {error}{hint * pretrained}") from error


def _patch_size(image_size: int) -> int:
    """The divisor of image_size whose grid of tokens is nearest to 8x8, and at least 4x4."""
    divisors = [p for p in range(1, image_size // 4 + 1) if image_size % p == 0]
    return min(divisors, key=lambda p: abs(image_size // p - 8), default=1)


def _shrink_stem(model: Any, name: str) -> None:
    """In place: 2x2 patches for larger ones, a 3x3 stride-1 convolution for any other, no max-pool.

    The middle of each filter stays, scaled to the variance that the initialisation gives a filter of the new size.
    """
    if not is_model_in_modules(name, {"resnet", "convnext"}):
        raise ValueError(
            f"backbone.name={name}: no small stem is known for this family. Give backbone.small_stem=false to keep "
            "the stem made for large images, or choose a ResNet, a ConvNeXt or a ViT."
        )
    conv = model.get_submodule(model.pretrained_cfg["first_conv"])
    old = conv.kernel_size[0]
    new, stride, padding = (2, 2, 0) if conv.kernel_size == conv.stride else (3, 1, 1)
    middle = slice((old - new) // 2, (old + new) // 2)
    conv.weight = nn.Parameter(conv.weight.detach()[:, :, middle, middle].contiguous() * (old / new))
    conv.kernel_size, conv.stride, conv.padding = (new, new), (stride, stride), (padding, padding)
    if is_model_in_modules(name, {"resnet"}):
        model.maxpool = nn.Identity()


def _feature_width(model: nn.Module, name: str, in_chans: int, image_size: int) -> int:
    """D, measured on one blank image: timm's own `num_features` is not always the width of the output."""
    try:
        with torch.no_grad():
            return model.eval()(torch.zeros(1, in_chans, image_size, image_size)).shape[1]
    except (AssertionError, RuntimeError) as error:
        raise ValueError(f"backbone.name={name} takes no images of {image_size} pixels: {error}") from error
    finally:
        model.train()


def load_weights(model: nn.Module, path: str) -> None:
    """Fills `model` from a safetensors or torch file, in place, and logs how many tensors matched.

    A prefix common to the names in the file, such as `backbone.`, is found and taken off. Raises ValueError for an
    unreadable file, or when name and shape match for fewer than 90 % of the model's tensors.
    """
    try:
        state = load_state_dict(path, weights_only=True)
    except (OSError, AttributeError, EOFError, RuntimeError, UnpicklingError, SafetensorError) as error:
        raise ValueError(f"backbone.pretrained={path}: no such file, or not one of weights ({error!r}).") from error
    # Integers, the batch counters of BatchNorm, are left out of the count: old files lack them.
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items() if tensor.is_floating_point()}
    last = list(shapes)[-1]
    best: dict[str, Tensor] = {}
    for prefix in sorted(key.removesuffix(last) for key in state if key.endswith(last)):
        named = {name: state[prefix + name] for name in shapes if prefix + name in state}
        best = max(best, {name: tensor for name, tensor in named.items() if tensor.shape == shapes[name]}, key=len)
    rest = ", ".join(sorted(shapes.keys() - best.keys())[:5]) or "none"
    report = f"backbone.pretrained={path}: {len(best)} of {len(shapes)} tensors match; not in it: {rest}"
    if len(best) < 0.9 * len(shapes):
        raise ValueError(f"{report}, ... At least 90 % must match: are these the weights of another model?")
    log.info(report)
    model.load_state_dict(best, strict=False)


class TextEncoder(nn.Module):
    """What text backbones share: padding is found in the ids, tokens are pooled to one vector a row.

    A subclass sets `num_features`, `depth` and `embedding`, the input nn.Embedding, which heads may tie to.
    """

    def __init__(self, pool: str, pad_id: int):
        super().__init__()
        if pool not in ("mean", "cls", "max"):
            raise ValueError(f"backbone.pool={pool}: choose mean, cls or max.")
        self.pool, self.pad_id = pool, pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, L) int64 -> (B, D). Padding has no influence; a row of nothing but padding gives finite values."""
        x, valid = self.forward_tokens(ids), self._valid(ids).unsqueeze(-1)
        if self.pool == "cls":
            return x[:, 0]
        if self.pool == "max":
            return x.masked_fill(~valid, float("-inf")).amax(1)
        return x.masked_fill(~valid, 0).sum(1) / valid.sum(1)

    def forward_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """(B, L, D). `embeddings` (B, L, E) stands in for the embedded tokens; `ids` still tell padding from text."""
        raise NotImplementedError

    def _valid(self, ids: Tensor) -> Tensor:
        """(B, L) bool, True at text. A row without text counts as all text: its softmax and its mean would be NaN."""
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise ValueError(f"token ids must be (B, L) int64, got {tuple(ids.shape)} {ids.dtype}.")
        valid = ids != self.pad_id
        return valid | ~valid.any(1, keepdim=True)

    def no_weight_decay(self) -> set[str]:
        """Names of the embedding tables (timm's convention; norms and biases are known by being 1-D)."""
        return {f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.Embedding)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers for timm's layer-wise learning-rate decay: embeddings, then each block, the last with the norm."""
        block = r"(?:model\.)?(?:encoder\.)?(?:blocks|layers?)\.(\d+)"  # ours, BERT's and ModernBERT's names
        return {"stem": r"(?:model\.)?(?:embedding|position)", "blocks": [(block, None), (r".*norm\.", (99999,))]}


class TextTransformer(TextEncoder):
    """Token embedding, the blocks of a timm ViT, and a forward pass of our own.

    timm's own forward has no 1-D positions and drops gradient checkpointing when a mask is given. Blocks that take
    rotary positions (EVA-02, DINOv3) get 1-D RoPE (Su et al. 2021, arXiv 2104.09864) and run at any length; others get
    learned positions up to `max_length`. The norm after the embedding is from Cramming (arXiv 2212.14034, section 4.2).

    trunk: timm name of a ViT. LayerScale, 1e-5 in many, would be near the identity for a short run: it starts at 1
        unless `init_values` is given.
    pool: mean (over text), cls (first token) or max.
    isolate_documents: `sep_id` ends a document; tokens attend within theirs only, and positions restart there.
    causal: tokens attend to the past only.
    trunk_kwargs: `depth`, `embed_dim`, `num_heads`, `proj_drop_rate`, ...; `pos_drop_rate` acts after the embedding.
    """

    def __init__(
        self,
        trunk: str,
        vocab_size: int,
        max_length: int,
        pool: str = "mean",
        grad_checkpointing: bool = False,
        pad_id: int = 0,
        sep_id: int = 3,
        isolate_documents: bool = False,
        causal: bool = False,
        **trunk_kwargs: Any,
    ):
        super().__init__(pool, pad_id)
        self.grad_checkpointing, self.max_length = grad_checkpointing, max_length
        self.sep_id, self.isolate_documents, self.causal = sep_id, isolate_documents, causal
        self.blocks, self.num_features, self.rope = _harvest(trunk, trunk_kwargs)
        self.depth = len(self.blocks)
        self.embedding = nn.Embedding(vocab_size, self.num_features)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        self.position = nn.Embedding(max_length, self.num_features) if self.rope is None else None
        if self.position is not None:
            nn.init.trunc_normal_(self.position.weight, std=0.02)
        self.embedding_norm = nn.LayerNorm(self.num_features)
        self.embedding_dropout = nn.Dropout(trunk_kwargs.get("pos_drop_rate", 0.0))
        self.norm = nn.LayerNorm(self.num_features)

    def forward_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """(B, L) int64 -> (B, L, D), after the final norm. What stands at padding is finite and means nothing."""
        mask, positions = self._mask_and_positions(ids)
        x = self.embedding(ids) if embeddings is None else embeddings
        context: dict[str, Any] = {"attn_mask": mask}
        if self.position is not None:
            x = x + self.position(positions)
        if self.rope is not None:
            rope = self.rope.get_embed([ids.shape[1]])  # (L, 2 * head_dim) float32, sines then cosines
            context["rope"] = rope[positions].unsqueeze(-3)
        x = self.embedding_dropout(self.embedding_norm(x))
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block.__call__, x, use_reentrant=False, **context)
            else:
                x = block(x, **context)
        return self.norm(x)

    def _mask_and_positions(self, ids: Tensor) -> tuple[Tensor | None, Tensor]:
        """What each query (row) sees: bool (B, 1, 1 or L, L), None for all; and positions, int64 (L,) or (B, L)."""
        valid, length = self._valid(ids), ids.shape[1]
        if self.position is not None and length > self.max_length:
            raise ValueError(f"backbone.max_length={self.max_length}: too short for the positions of {length} tokens.")
        positions = torch.arange(length, device=ids.device)
        if not (self.isolate_documents or self.causal):
            # Attention without a mask is faster, and on a CPU a look at the ids stalls nothing.
            all_valid = ids.device.type == "cpu" and bool(valid.all())
            return None if all_valid else valid[:, None, None, :], positions
        seen = valid[:, None, :].expand(-1, length, -1)
        if self.causal:
            seen = seen.tril()
        if self.isolate_documents:
            ends = (ids == self.sep_id).long()
            document = ends.cumsum(1) - ends  # the separator belongs to the document it ends
            seen = seen & (document[:, :, None] == document[:, None, :])
            begins = document.diff(dim=1, prepend=document[:, :1]) > 0
            positions = positions - torch.where(begins, positions, 0).cummax(1).values
        # Every query sees itself: one at padding may see nothing else, and the softmax over no key is NaN.
        return (seen | torch.eye(length, dtype=torch.bool, device=ids.device)).unsqueeze(1), positions


def _harvest(trunk: str, overrides: dict[str, Any]) -> tuple[nn.ModuleList, int, RotaryEmbeddingCat | None]:
    """The blocks of a timm ViT made ready for text, their width, and 1-D rotary positions if they take any."""
    model = _create("backbone.trunk", trunk, False, overrides)
    blocks = list(dict(model.named_children()).get("blocks", ()))
    takes = inspect.signature(blocks[0].forward).parameters if blocks else {}
    if "attn_mask" not in takes:
        raise ValueError(
            f"backbone.trunk={trunk}: its blocks take no attention mask. Choose a ViT, such as vit_small_patch16_224 "
            "(learned positions) or eva02_small_patch14_224 (rotary positions)."
        )
    if overrides.get("init_values") is None:
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                nn.init.ones_(parameter)
    if "rope" not in takes:
        return nn.ModuleList(blocks), model.num_features, None
    for block in blocks:
        block.attn.num_prefix_tokens = 0  # an image's class token is not rotated; text has none
    # timm splits the bands between the two axes of an image; twice the width gives all of them to one.
    attn = blocks[0].attn
    rope = RotaryEmbeddingCat(2 * attn.head_dim, in_pixels=False, rotate_half=attn.rotate_half)
    return nn.ModuleList(blocks), model.num_features, rope


class TransformersEncoder(TextEncoder):
    """A Hugging Face encoder with the face of `TextTransformer`; see `transformers_backbone`."""

    def __init__(self, model: Any, pool: str, grad_checkpointing: bool, pad_id: int):
        super().__init__(pool, pad_id)
        self.model, self.num_features, self.depth = model, model.config.hidden_size, model.config.num_hidden_layers
        if "pooler" in dict(model.named_children()):
            model.pooler = None  # it would never get a gradient, which DistributedDataParallel refuses
        if grad_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def forward_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """(B, L) int64 -> (B, L, D)."""
        inputs = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
        return self.model(**inputs, attention_mask=self._valid(ids).long()).last_hidden_state


def transformers_backbone(
    name: str,
    vocab_size: int,
    max_length: int,
    pretrained: bool = False,
    pool: str = "mean",
    grad_checkpointing: bool = False,
    pad_id: int = 0,
    **config_kwargs: Any,
) -> TransformersEncoder:
    """A Hugging Face encoder; needs `pip install ssl_zoo[transformers]`.

    name: a model type such as bert, modernbert or electra (random weights, no network), a hub id, or a local folder.
    pretrained: load the weights behind a hub id or folder; the data's tokenizer must then be the model's own.
    config_kwargs: fields of the model's configuration such as `num_hidden_layers`.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
    except ImportError as error:
        raise ValueError(f"backbone.name={name} needs transformers: pip install 'ssl_zoo[transformers]'") from error
    read: Any = AutoConfig.for_model if name in CONFIG_MAPPING else AutoConfig.from_pretrained
    # RoBERTa numbers positions from pad_id + 1. The other special ids may lie outside a small vocabulary.
    new: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    new |= {"vocab_size": vocab_size, "pad_token_id": pad_id, "max_position_embeddings": max_length + pad_id + 1}
    try:
        config = read(name)
        if unknown := config_kwargs.keys() - config.to_dict().keys() - config.attribute_map.keys():
            raise ValueError(f"backbone.{min(unknown)}: {name} has no such setting, only {', '.join(config.to_dict())}")
        if pretrained:
            model = AutoModel.from_pretrained(name, attn_implementation="sdpa", **config_kwargs)
        else:
            model = AutoModel.from_config(read(name, **(new | config_kwargs)), attn_implementation="sdpa")
    except OSError as error:
        raise ValueError(f"backbone.name={name}: no model type, local folder or hub id in reach ({error}).") from error
    its, ours = (model.config.vocab_size, model.config.pad_token_id), (vocab_size, pad_id)
    if its[0] < ours[0] or its[1] != ours[1]:
        raise ValueError(
            f"backbone.name={name}: vocabulary, padding {its}, the data's {ours}. Set data.tokenizer={name}."
        )
    return TransformersEncoder(model, pool, grad_checkpointing, pad_id)
