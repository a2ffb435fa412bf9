"""Text backbones: the blocks of any timm ViT, and Hugging Face encoders as an optional extra.

A text backbone maps ids (B, L) int64 to (B, D), with D as `num_features`, and by `encode` to one vector per token.
Letters: B batch, L length, M tokens kept, D width.
"""

import inspect
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from timm.layers import RotaryEmbeddingCat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ssl_zoo.backbones.image import create_timm_model


class EncodedTokens(NamedTuple):
    """Output of an encoder for M tokens of a view, by default all.

    Attributes:
        pooled: (B, D), the vector of the whole view; equals `backbone(view)` if all tokens are kept.
        tokens: (B, M, D), after the last norm, in the order of the view or of `keep`; without class token.
        layers: outputs of the blocks, (B, M, D) each, first to last, before the last norm.
    """

    pooled: Tensor
    tokens: Tensor
    layers: list[Tensor]


class TextEncoder(nn.Module):
    """Base class of text backbones: recognises padding by its id, and pools tokens to one vector per row.

    Subclasses set `num_features`, `depth` and `embedding`, the input nn.Embedding, to which heads may be tied.
    """

    def __init__(self, pool: str, pad_id: int):
        super().__init__()
        if pool not in ("mean", "cls", "max"):
            raise ValueError(f"backbone.pool={pool}: choose mean, cls or max.")
        self.pool = pool
        self.pad_id = pad_id

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids (B, L) int64 to (B, D), independent of padding; a row of padding only gives finite values."""
        return self.encode(ids).pooled

    def forward_tokens(self, ids: Tensor, embeddings: Tensor | None = None) -> Tensor:
        """Maps ids (B, L) int64 to (B, L, D), after the last norm; values at padding are finite but meaningless."""
        return self.encode(ids, embeddings).tokens

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        """Runs the encoder and returns its output per token.

        Args:
            ids: (B, L) int64; still needed to recognise padding if `embeddings` are given.
            embeddings: (B, L, E), replace the embedded tokens.
            keep: (B, M) int64, the columns that the encoder sees, at their original positions; None for all.
        """
        raise NotImplementedError

    def _pooled(self, x: Tensor, valid: Tensor) -> Tensor:
        """Pools x (B, M, D) over its valid tokens (B, M) bool to (B, D)."""
        if self.pool == "cls":
            return x[:, 0]
        valid = valid.unsqueeze(-1)
        if self.pool == "max":
            return x.masked_fill(~valid, float("-inf")).amax(1)
        return x.masked_fill(~valid, 0).sum(1) / valid.sum(1)

    def valid(self, ids: Tensor) -> Tensor:
        """(B, L) bool, True at text. A row without text is all True, because its softmax and mean would be NaN."""
        if ids.dim() != 2 or ids.dtype != torch.int64:
            raise ValueError(f"token ids must be (B, L) int64, got {tuple(ids.shape)} {ids.dtype}.")
        valid = ids != self.pad_id
        return valid | ~valid.any(1, keepdim=True)

    def no_weight_decay(self) -> set[str]:
        """Names of the embedding tables (timm's convention); norms and biases are recognised as 1-D tensors."""
        return {f"{name}.weight" for name, module in self.named_modules() if isinstance(module, nn.Embedding)}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups for timm's layer-wise learning-rate decay: embeddings, then each block, the last with the norm."""
        block = r"(?:model\.)?(?:encoder\.)?(?:blocks|layers?)\.(\d+)"  # names here, in BERT and in ModernBERT
        return {"stem": r"(?:model\.)?(?:embedding|position)", "blocks": [(block, None), (r".*norm\.", (99999,))]}


class TextTransformer(TextEncoder):
    """Token embedding and the blocks of a timm ViT, with their own forward pass.

    timm's forward pass has no 1-D positions and no gradient checkpointing with an attention mask. Blocks with rotary
    positions (EVA-02, DINOv3) get 1-D RoPE (Su et al. 2021, arXiv 2104.09864) and accept any length; others get learned
    positions up to `max_length`. The norm after the embedding is from Cramming (arXiv 2212.14034, section 4.2).

    Args:
        trunk: timm name of a ViT. LayerScale starts at 1 unless `init_values` is given: with 1e-5, the default of many
            models, blocks would stay near the identity in a short run.
        vocab_size: number of token ids.
        max_length: maximum number of tokens per row.
        pool: mean (over text), cls (first token) or max.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        pad_id: id of padding.
        sep_id: id of the separator at the end of a document.
        isolate_documents: tokens attend only within their document, and positions restart at each document.
        causal: tokens attend only to previous tokens.
        trunk_kwargs: `depth`, `embed_dim`, `num_heads`, `proj_drop_rate`, ...; `pos_drop_rate` applies after the
            embedding.
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
        self.blocks, self.num_features, self.rope = _timm_blocks(trunk, trunk_kwargs)
        self.depth = len(self.blocks)
        self.embedding = nn.Embedding(vocab_size, self.num_features)
        nn.init.trunc_normal_(self.embedding.weight, std=0.02)
        self.position = nn.Embedding(max_length, self.num_features) if self.rope is None else None
        if self.position is not None:
            nn.init.trunc_normal_(self.position.weight, std=0.02)
        self.embedding_norm = nn.LayerNorm(self.num_features)
        self.embedding_dropout = nn.Dropout(trunk_kwargs.get("pos_drop_rate", 0.0))
        self.norm = nn.LayerNorm(self.num_features)

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        """See `TextEncoder.encode`."""
        mask, positions = self._mask_and_positions(ids)
        x, valid = self.embedding(ids) if embeddings is None else embeddings, self.valid(ids)
        if keep is not None:
            x, valid = x.gather(1, keep.unsqueeze(-1).expand(-1, -1, x.shape[-1])), valid.gather(1, keep)
            positions, mask = positions.expand_as(ids).gather(1, keep), _keep_in_mask(mask, keep)
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
        return EncodedTokens(self._pooled(x, valid), x, layers)

    def _mask_and_positions(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Attention mask, (B, 1, 1 or L, L) bool, and positions, (L,) or (B, L) int64."""
        valid, length = self.valid(ids), ids.shape[1]
        if self.position is not None and length > self.max_length:
            raise ValueError(f"backbone.max_length={self.max_length}: too short for the positions of {length} tokens.")
        positions = torch.arange(length, device=ids.device)
        if not (self.isolate_documents or self.causal):
            return valid[:, None, None, :], positions
        visible = valid[:, None, :].expand(-1, length, -1)
        if self.causal:
            visible = visible.tril()
        if self.isolate_documents:
            ends = (ids == self.sep_id).long()
            document = ends.cumsum(1) - ends  # the separator belongs to the document it ends
            visible = visible & (document[:, :, None] == document[:, None, :])
            begins = document.diff(dim=1, prepend=document[:, :1]) > 0
            positions = positions - torch.where(begins, positions, 0).cummax(1).values
        # Each token sees itself: one at padding may see no other, and the softmax over no key is NaN.
        return (visible | torch.eye(length, dtype=torch.bool, device=ids.device)).unsqueeze(1), positions


def _keep_in_mask(mask: Tensor, keep: Tensor) -> Tensor:
    """Restricts an attention mask (B, 1, 1 or L, L) to the columns `keep` (B, M): (B, 1, 1 or M, M)."""
    mask = mask.gather(3, keep[:, None, None, :].expand(-1, -1, mask.shape[2], -1))
    return mask if mask.shape[2] == 1 else mask.gather(2, keep[:, None, :, None].expand(-1, -1, -1, keep.shape[1]))


def _timm_blocks(trunk: str, overrides: dict[str, Any]) -> tuple[nn.ModuleList, int, RotaryEmbeddingCat | None]:
    """The blocks of a timm ViT, prepared for text, their width, and 1-D rotary positions if they use any."""
    model = create_timm_model("backbone.trunk", trunk, False, overrides)
    blocks = list(dict(model.named_children()).get("blocks", ()))
    parameters = inspect.signature(blocks[0].forward).parameters if blocks else {}
    if "attn_mask" not in parameters:
        raise ValueError(
            f"backbone.trunk={trunk}: its blocks take no attention mask. Choose a ViT, such as vit_small_patch16_224 "
            "(learned positions) or eva02_small_patch14_224 (rotary positions)."
        )
    if overrides.get("init_values") is None:
        for name, parameter in model.named_parameters():
            if "gamma" in name:
                nn.init.ones_(parameter)
    if "rope" not in parameters:
        return nn.ModuleList(blocks), model.num_features, None
    for block in blocks:
        block.attn.num_prefix_tokens = 0  # timm does not rotate class tokens; text has none
    # timm splits the frequencies between the two axes of an image; twice the width gives all of them to one axis.
    attn = blocks[0].attn
    rope = RotaryEmbeddingCat(2 * attn.head_dim, in_pixels=False, rotate_half=attn.rotate_half)
    return nn.ModuleList(blocks), model.num_features, rope


class TransformersEncoder(TextEncoder):
    """A Hugging Face encoder with the interface of `TextTransformer`; see `transformers_backbone`.

    Args:
        model: of transformers.
        pool: mean, cls or max.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        pad_id: id of padding.
        prefix: ids that the model expects before each text, such as [CLS]. They take part in the pooling.
        suffix: ids that it expects after each text, such as [SEP].
    """

    def __init__(
        self,
        model: Any,
        pool: str,
        grad_checkpointing: bool,
        pad_id: int,
        prefix: Sequence[int] = (),
        suffix: Sequence[int] = (),
    ):
        super().__init__(pool, pad_id)
        self.model = model
        self.prefix = list(prefix)
        self.suffix = list(suffix)
        self.num_features = model.config.hidden_size
        self.depth = model.config.num_hidden_layers
        if "pooler" in dict(model.named_children()):
            model.pooler = None  # without a gradient, which DistributedDataParallel refuses
        if grad_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    @property
    def embedding(self) -> nn.Embedding:
        """The input token embedding."""
        return self.model.get_input_embeddings()

    def encode(self, ids: Tensor, embeddings: Tensor | None = None, keep: Tensor | None = None) -> EncodedTokens:
        """See `TextEncoder.encode`; `keep` is an error, because these models assign positions themselves."""
        if keep is not None:
            raise ValueError(
                "backbone: this method leaves tokens out, which Hugging Face encoders cannot; use text_small"
            )
        added = bool(self.prefix or self.suffix)
        if added and embeddings is not None:
            raise ValueError("backbone: this encoder adds tokens of its own to a text, which embeddings cannot replace")
        length, valid = ids.shape[1], self.valid(ids)
        if added:
            ids, valid = self._with_added_tokens(ids, valid)
        inputs = {"input_ids": ids} if embeddings is None else {"inputs_embeds": embeddings}
        out = self.model(**inputs, attention_mask=valid.long(), output_hidden_states=True)
        own = slice(len(self.prefix), len(self.prefix) + length)
        layers = [layer[:, own] for layer in out.hidden_states[1:]]
        return EncodedTokens(self._pooled(out.last_hidden_state, valid), out.last_hidden_state[:, own], layers)

    def _with_added_tokens(self, ids: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Puts `prefix` before and `suffix` right after the text of each row: (B, L + added) ids and valid."""
        lengths = valid.sum(1)
        rows = ids.new_full((len(ids), ids.shape[1] + len(self.prefix) + len(self.suffix)), self.pad_id)
        rows[:, : len(self.prefix)] = ids.new_tensor(self.prefix)
        rows[:, len(self.prefix) : len(self.prefix) + ids.shape[1]] = ids
        columns = len(self.prefix) + lengths[:, None] + torch.arange(len(self.suffix), device=ids.device)
        rows.scatter_(1, columns, ids.new_tensor(self.suffix).expand(len(ids), -1))
        width = lengths[:, None] + len(self.prefix) + len(self.suffix)
        return rows, torch.arange(rows.shape[1], device=ids.device) < width


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
    """Creates a Hugging Face encoder; needs `pip install ssl_zoo[transformers]`.

    Args:
        name: a model type such as bert, modernbert or electra (no network needed), a hub id, or a local folder.
        vocab_size: number of token ids.
        max_length: maximum number of tokens per row.
        pretrained: load the weights of a hub id or folder; the data's tokenizer must then be that of the model.
        pool: mean, cls or max.
        grad_checkpointing: recompute activations in the backward pass to save memory.
        pad_id: id of padding.
        config_kwargs: fields of the model's configuration such as `num_hidden_layers`.

    Raises:
        ValueError: for an unknown name or setting, or a vocabulary that does not fit the model.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
    except ImportError as error:
        raise ValueError(f"backbone.name={name} needs transformers: pip install 'ssl_zoo[transformers]'") from error
    if not isinstance(pretrained, bool):
        raise ValueError(
            f"backbone.pretrained={pretrained}: give true or false; a folder of weights is a backbone.name"
        )

    # By default, transformers asks on the terminal whether to run code from the repository.
    no_code: Any = {"trust_remote_code": False}
    from_hub = partial(AutoConfig.from_pretrained, **no_code)
    make_config: Any = AutoConfig.for_model if name in CONFIG_MAPPING else from_hub
    # RoBERTa counts positions from pad_id + 1. The other special ids may lie outside a small vocabulary.
    overrides: dict[str, Any] = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
    overrides |= {"vocab_size": vocab_size, "pad_token_id": pad_id, "max_position_embeddings": max_length + pad_id + 1}

    try:
        config = make_config(name)
        if unknown := config_kwargs.keys() - config.to_dict().keys() - config.attribute_map.keys():
            raise ValueError(f"backbone.{min(unknown)}: {name} has no such setting, only {', '.join(config.to_dict())}")
        if pretrained:
            model = AutoModel.from_pretrained(name, attn_implementation="sdpa", **no_code, **config_kwargs)
        else:
            model = AutoModel.from_config(make_config(name, **(overrides | config_kwargs)), attn_implementation="sdpa")
    except OSError as error:
        raise ValueError(f"backbone.name={name}: no model type, local folder or hub id in reach ({error}).") from error
    of_model, of_data = (model.config.vocab_size, model.config.pad_token_id), (vocab_size, pad_id)
    if of_model[0] < of_data[0] or of_model[1] != of_data[1]:
        raise ValueError(
            f"backbone.name={name}: vocabulary, padding {of_model}, the data's {of_data}. Set data.tokenizer={name}."
        )
    return TransformersEncoder(model, pool, grad_checkpointing, pad_id)
