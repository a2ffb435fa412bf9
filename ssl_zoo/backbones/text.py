"""Text networks: the blocks of any timm ViT, and Hugging Face encoders as an extra.

A text backbone maps ids (B, L) int64 to (B, D), with D as `num_features`, and by `encode` to a vector a token.
Letters: B batch, L length, M tokens kept, D width.
"""

import inspect
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_zoo.backbones.image import create


class Tokens(NamedTuple):
    """What an encoder gives for each part of a view. M is the number of tokens kept, all of them by default.

    pooled: (B, D), the vector of the whole view; with all tokens kept it equals `backbone(view)`.
    tokens: (B, M, D), after the last norm, in the order of the view or of `keep`; no class token.
    layers: (B, M, D) each, the outputs of the blocks, first to last, before any last norm.
    """

    pooled: Tensor
    tokens: Tensor
    layers: list[Tensor]


class TextEncoder(nn.Module):
    """What text backbones share: padding is found in the ids, tokens are pooled to one vector a row.

    A subclass sets `num_features`, `depth` and `embedding`, the input nn.Embedding, which heads may tie to.
    """

    def __init__(self, pool: str, pad_id: int):
        super().__init__()
        if pool not in ("mean", "cls", "max"):
            raise ValueError(f"backbone.pool={pool}: choose mean, cls or max.")
        self.pool = pool
        self.pad_id = pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """ids (B, L) int64 -> (B, D). Padding has no influence; a row of nothing but padding gives finite values."""
        return self.encode(ids).pooled

    def forward_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """(B, L) int64 -> (B, L, D), after the last norm. What stands at padding is finite and means nothing."""
        return self.encode(ids, embeddings).tokens

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        """`embeddings` (B, L, E) stands in for the embedded tokens; `ids` still tell padding from text. `keep` (B, M)
        int64: the columns that the encoder sees, at their own positions; None for all."""
        raise NotImplementedError

    def _pooled(self, x: Tensor, valid: Tensor) -> Tensor:
        """(B, M, D) and (B, M) bool -> (B, D)."""
        if self.pool == "cls":
            return x[:, 0]
        valid = valid.unsqueeze(-1)
        if self.pool == "max":
            return x.masked_fill(~valid, float("-inf")).amax(1)
        return x.masked_fill(~valid, 0).sum(1) / valid.sum(1)

    def valid(self, ids: Tensor) -> Tensor:
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
        self.grad_checkpointing = grad_checkpointing
        self.max_length = max_length
        self.sep_id = sep_id
        self.isolate_documents = isolate_documents
        self.causal = causal
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

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        mask, positions = self._mask_and_positions(ids)
        x, valid = self.embedding(ids) if embeddings is None else embeddings, self.valid(ids)
        if keep is not None:
            x, valid = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1])), valid.gather(1, keep)
            positions, mask = positions.expand_as(ids).gather(1, keep), _kept(mask, keep)
        context: dict[str, Any] = {"attn_mask": mask}
        if self.position is not None:
            x = x + self.position(positions)
        if self.rope is not None:
            rope = self.rope.get_embed([ids.shape[1]])  # (L, 2 * head_dim) float32, sines then cosines
            context["rope"] = rope[positions].unsqueeze(-3)
        x = self.embedding_dropout(self.embedding_norm(x))
        layers = []
        for block in self.blocks:
            if self.grad_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block.__call__, x, use_reentrant=False, **context)
            else:
                x = block(x, **context)
            layers.append(x)
        x = self.norm(x)
        return Tokens(self._pooled(x, valid), x, layers)

    def _mask_and_positions(self, ids: Tensor) -> tuple[Tensor | None, Tensor]:
        """What each query (row) sees: bool (B, 1, 1 or L, L), None for all; and positions, int64 (L,) or (B, L)."""
        valid, length = self.valid(ids), ids.shape[1]
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


def _kept(mask: Tensor | None, keep: Tensor) -> Tensor | None:
    """The part of a mask (B, 1, 1 or L, L) that concerns the columns `keep` (B, M): (B, 1, 1 or M, M)."""
    if mask is None:
        return None
    mask = mask.gather(3, keep[:, None, None, :].expand(-1, -1, mask.shape[2], -1))
    return mask if mask.shape[2] == 1 else mask.gather(2, keep[:, None, :, None].expand(-1, -1, -1, keep.shape[1]))


def _harvest(trunk: str, overrides: dict[str, Any]) -> tuple[nn.ModuleList, int, RotaryEmbeddingCat | None]:
    """The blocks of a timm ViT made ready for text, their width, and 1-D rotary positions if they take any."""
    model = create("backbone.trunk", trunk, False, overrides)
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
        self.model = model
        self.num_features = model.config.hidden_size
        self.depth = model.config.num_hidden_layers
        if "pooler" in dict(model.named_children()):
            model.pooler = None  # it would never get a gradient, which DistributedDataParallel refuses
        if grad_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def embedding(self) -> nn.Embedding:
        return self.model.get_input_embeddings()

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> Tokens:
        """As above; dropping tokens is refused, since these models number positions themselves."""
        if keep is not None:
            raise ValueError(
                "backbone: this method leaves tokens out, which Hugging Face encoders cannot; use text_small"
            )
        inputs = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
        valid = self.valid(ids)
        out = self.model(**inputs, attention_mask=valid.long(), output_hidden_states=True)
        return Tokens(self._pooled(out.last_hidden_state, valid), out.last_hidden_state, list(out.hidden_states[1:]))


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
    if not isinstance(pretrained, bool):
        raise ValueError(
            f"backbone.pretrained={pretrained}: give true or false; a folder of weights is a backbone.name"
        )
    never: Any = {"trust_remote_code": False}  # the default asks on the terminal whether to run what a repository holds
    read: Any = AutoConfig.for_model if name in CONFIG_MAPPING else partial(AutoConfig.from_pretrained, **never)
    # RoBERTa numbers positions from pad_id + 1. The other special ids may lie outside a small vocabulary.
    new: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    new |= {"vocab_size": vocab_size, "pad_token_id": pad_id, "max_position_embeddings": max_length + pad_id + 1}
    try:
        config = read(name)
        if unknown := config_kwargs.keys() - config.to_dict().keys() - config.attribute_map.keys():
            raise ValueError(f"backbone.{min(unknown)}: {name} has no such setting, only {', '.join(config.to_dict())}")
        if pretrained:
            model = AutoModel.from_pretrained(name, attn_implementation="sdpa", **never, **config_kwargs)
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
