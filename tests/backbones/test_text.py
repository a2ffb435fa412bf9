"""Text backbones: masks, positions and documents against the definition."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import Tensor, nn

from ssl_zoo.backbones import text as text_module
from ssl_zoo.backbones.text import TextTransformer, transformers_backbone

SMALL = {"depth": 2, "embed_dim": 64, "num_heads": 2}
TRUNKS: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {},
    "deit3_small_patch16_224": {},
    "vit_base_patch16_siglip_224": {},
    "vit_small_patch14_dinov2": {},
    "vit_little_patch16_reg4_gap_256": {},
    "naflexvit_base_patch16_gap": {},
    "eva02_tiny_patch14_224": {"qkv_bias": False},
    "eva02_base_patch14_224": {},
    "vit_small_patch16_rope_224": {},
    "vit_small_patch16_rope_mixed_224": {},
    "vit_small_patch16_dinov3": {},
    "vit_pe_core_tiny_patch16_384": {},
}
ROTARY = ["eva02_tiny_patch14_224", "vit_small_patch16_rope_224", "vit_small_patch16_dinov3"]


def text(trunk: str = "eva02_tiny_patch14_224", seed: int = 0, **kwargs: Any) -> TextTransformer:
    torch.manual_seed(seed)
    options: dict[str, Any] = {"vocab_size": 50, "max_length": 24, **SMALL, **TRUNKS.get(trunk, {}), **kwargs}
    model = TextTransformer(trunk, **options).eval()
    for weight in model.blocks.parameters():
        if weight.ndim == 2:  # fresh attention is all but uniform; larger weights make every mistake visible
            nn.init.normal_(weight, std=0.15)
    return model


def attention(model: TextTransformer) -> Any:
    return model.get_submodule("blocks.0.attn")


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=0.0, atol=1e-5)


def tokens(*lengths: int, width: int | None = None, seed: int = 1) -> Tensor:
    """Ordinary ids (no padding 0, no separator 3) of the given lengths, padded to the longest or to `width`."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.zeros(len(lengths), width or max(lengths), dtype=torch.int64)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.randint(4, 50, (length,), generator=generator)
    return ids


@pytest.fixture
def explicit_attention() -> Iterator[None]:
    set_fused_attn(False)
    yield
    set_fused_attn(True)


# ------------------------------------------------------------------------------------------------ text: masks


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_padding_has_no_influence(trunk: str, pool: str) -> None:
    model = text(trunk, pool=pool)
    ids = tokens(10, 6)
    garbage = model.embedding(ids).detach()
    garbage[1, 6:] = 100 * torch.randn(4, 64)
    with torch.no_grad():
        clean, dirty = model.forward_tokens(ids), model.forward_tokens(ids, garbage)
        assert torch.equal(clean[1, :6], dirty[1, :6])
        assert torch.equal(clean[0], dirty[0])
        close(model(ids)[1:], model(ids[1:, :6]))  # padded = unpadded
        close(model(ids).flip(0), model(ids.flip(0)))  # order in the batch
        assert (model(ids)[0] - model(ids)[1]).abs().max() > 1e-3


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"isolate_documents": True}])
@pytest.mark.parametrize("trunk", TRUNKS)
def test_explicit_attention_equals_fused(trunk: str, options: dict[str, bool], explicit_attention: None) -> None:
    ids = tokens(10, 6, 0)  # the last row is all padding
    ids[0, 0], ids[0, 4], ids[1, 5] = 0, 3, 3  # padding before any text, and after the end of a document
    explicit = text(trunk, **options)
    set_fused_attn(True)
    fused = text(trunk, **options)
    assert not attention(explicit).fused_attn
    assert attention(fused).fused_attn
    with torch.no_grad():
        close(explicit.forward_tokens(ids), fused.forward_tokens(ids))
        assert fused.forward_tokens(ids).isfinite().all()


@pytest.mark.parametrize("trunk", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_bfloat16_stays_close(trunk: str, explicit_attention: None) -> None:
    model, ids = text(trunk), tokens(10, 6, 0)
    exact = model(ids)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(ids)
    assert rough.dtype == torch.float32
    assert (rough - exact).abs().max() < 0.1 * exact.abs().max()


@pytest.mark.parametrize("pool", ["mean", "cls", "max"])
def test_row_of_padding_is_finite_with_gradient(pool: str, explicit_attention: None) -> None:
    for isolate in False, True:
        model = text(pool=pool, isolate_documents=isolate)
        output = model(tokens(8, 0))
        output.square().sum().backward()
        assert output.isfinite().all()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_mean_pooling_is_the_mean_over_text() -> None:
    model, ids = text(), tokens(9, 4)
    with torch.no_grad():
        close(model(ids)[1], model.forward_tokens(ids)[1, :4].mean(0))


def test_the_mask_is_one_row_per_text() -> None:
    mask, _ = text()._mask_and_positions(tokens(8, 5))
    assert mask.shape == (2, 1, 1, 8)
    assert mask.dtype == torch.bool
    assert mask.sum(-1).flatten().tolist() == [8, 5]


@pytest.mark.parametrize("trunk", TRUNKS)
def test_causal_sees_no_future(trunk: str) -> None:
    model, ids = text(trunk, causal=True), tokens(10, 7)
    changed = ids.clone()
    changed[:, 5:7] = 49 - changed[:, 5:7] + 4
    with torch.no_grad():
        before, after = model.forward_tokens(ids), model.forward_tokens(changed)
    close(before[:, :5], after[:, :5])
    assert (before[:, 6] - after[:, 6]).abs().max() > 1e-3


@pytest.mark.parametrize("ids", [torch.ones(4, dtype=torch.int64), torch.ones(2, 4), torch.ones(2, 4, 1).long()])
def test_wrong_ids_are_refused(ids: Tensor) -> None:
    with pytest.raises(ValueError, match=r"\(B, L\) int64"):
        text().valid(ids)


# ---------------------------------------------------------------------------------- text: positions, documents


@pytest.mark.parametrize("trunk", TRUNKS)
def test_isolated_documents_equal_documents_one_by_one(trunk: str) -> None:
    model = text(trunk, isolate_documents=True)
    row = tokens(16)
    row[0, 4] = row[0, 10] = 3  # documents of 5, 6 and 5 tokens, the separator with what it ends
    with torch.no_grad():
        packed = model.forward_tokens(row)[0]
        alone = torch.cat([model.forward_tokens(part)[0] for part in row.split([5, 6, 5], dim=1)])
        close(packed, alone)
        model.isolate_documents = False
        assert (model.forward_tokens(row)[0] - alone).abs().max() > 1e-2  # the check bites
    model.isolate_documents = True
    assert model._mask_and_positions(row)[1].tolist() == [[*range(5), *range(6), *range(5)]]


@pytest.mark.parametrize("trunk", ROTARY)
def test_rotary_positions_equal_the_textbook(trunk: str) -> None:
    """Su et al. 2021, equation 34: channel pairs turn by position * 10000^(-2i/d); pairs interleaved or in halves."""
    model = text(trunk)
    attn = attention(model)
    assert attn.num_prefix_tokens == 0
    head_dim, length = attn.head_dim, 12
    x = torch.randn(1, 2, length, head_dim)
    angle = torch.arange(length)[:, None] * 10000 ** (-torch.arange(0, head_dim, 2) / head_dim)
    first, second = x.chunk(2, -1) if attn.rotate_half else (x[..., 0::2], x[..., 1::2])
    turned = first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()
    expected = torch.cat(turned, -1) if attn.rotate_half else torch.stack(turned, -1).flatten(-2)
    assert model.rope is not None
    with torch.autocast("cpu", torch.bfloat16):
        table = model.rope.get_embed([length])
    assert table.dtype == torch.float32
    actual = timm.layers.apply_rot_embed_cat(x, table, half=attn.rotate_half)
    close(actual, expected)


@pytest.mark.parametrize("trunk", ROTARY)
def test_rotary_positions_are_relative_and_unbounded(trunk: str) -> None:
    model, ids = text(trunk, isolate_documents=True), tokens(40)  # max_length is 24
    with torch.no_grad():
        assert model(ids).isfinite().all()
        model.isolate_documents = False
        left = torch.cat([torch.zeros(1, 7, dtype=torch.int64), ids], dim=1)  # shifted by padding on the left
        close(model(left), model(ids))
        assert (model(ids) - model(ids.flip(1))).abs().max() > 1e-3  # but order counts


def test_learned_positions_end_at_max_length() -> None:
    model = text("vit_tiny_patch16_224")
    assert model(tokens(24)).shape == (1, 64)
    with pytest.raises(ValueError, match=r"backbone\.max_length=24"):
        model(tokens(25))


# --------------------------------------------------------------------------- text: memory, optimizer, options


@pytest.mark.parametrize("options", [{}, {"causal": True}, {"isolate_documents": True}])
@pytest.mark.parametrize("trunk", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_checkpointing_changes_memory_only(
    trunk: str, options: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = text_module.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(text_module, "checkpoint", counted)
    results = []
    for enabled in False, True:
        model = text(trunk, grad_checkpointing=enabled, **options).train()
        output = model(tokens(10, 6))  # padded, so a mask is in play
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    assert calls == model.depth
    for plain, checkpointed in zip(*results, strict=True):
        close(plain, checkpointed)


@pytest.mark.parametrize("trunk", ["vit_tiny_patch16_224", "eva02_tiny_patch14_224"])
def test_layer_decay_and_weight_decay(trunk: str) -> None:
    model = text(trunk, depth=3)
    groups = param_groups_layer_decay(
        model, weight_decay=0.1, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5
    )
    assert sorted({group["lr_scale"] for group in groups}) == [0.125, 0.25, 0.5, 1.0]  # depth + 1
    scale = {p: group["lr_scale"] for group in groups for p in group["params"]}
    assert scale[model.embedding.weight] == scale[model.embedding_norm.weight] == 0.125
    assert scale[model.norm.weight] == scale[model.get_parameter("blocks.2.norm1.weight")] == 1.0
    decay = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert {decay[p] for p in decay if p.ndim == 1 or p is model.embedding.weight} == {0.0}
    assert model.position is None or decay[model.position.weight] == 0.0
    assert decay[attention(model).proj.weight] == 0.1
    head = nn.Sequential(model, nn.Linear(64, 5))
    assert len(list(head.parameters())) == len(scale) + 2  # tying a head to `embedding` needs no second table


def test_muon_leaves_embeddings_to_its_fallback() -> None:
    model = text()
    optimizer = create_optimizer_v2(model, "muon", lr=1e-3, weight_decay=0.1, fallback_no_weight_decay=True)
    fallback = {p for group in optimizer.param_groups if group.get("use_fallback") for p in group["params"]}
    assert model.embedding.weight in fallback
    assert attention(model).proj.weight not in fallback


def test_layer_scale_starts_at_one_unless_given() -> None:
    def scales(**kwargs: Any) -> set[float]:
        blocks = text("vit_small_patch16_dinov3", **kwargs).blocks
        return {round(float(v), 8) for n, p in blocks.named_parameters() if "gamma" in n for v in p}

    assert scales() == scales(init_values=None) == {1.0}
    assert scales(init_values=1e-4) == {1e-4}


def test_dropout_options_reach_embedding_and_blocks() -> None:
    model = text(pos_drop_rate=0.5).train()
    assert not torch.equal(model(tokens(8)), model(tokens(8)))
    model = text(proj_drop_rate=0.5).train()
    assert not torch.equal(model(tokens(8)), model(tokens(8)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"trunk": "vit_tinny_patch16_224"}, r"backbone\.trunk=vit_tinny.*vit_tiny_patch16_224"),
        ({"trunk": "beit_base_patch16_224"}, "attention mask"),
        ({"trunk": "resnet18"}, r"backbone\.trunk=resnet18"),
        ({"trunk": "vit_tiny_patch16_224", "layers": 3}, "layers"),
        ({"trunk": "vit_tiny_patch16_224", "embed_dim": 65}, "divisible"),
        ({"trunk": "vit_tiny_patch16_224", "pool": "sum"}, r"backbone\.pool=sum"),
    ],
)
def test_unusable_text_options_are_named(kwargs: dict[str, Any], message: str) -> None:
    options = {} if kwargs["trunk"] == "resnet18" else SMALL if kwargs["trunk"][0] == "v" else {"depth": 1}
    with pytest.raises(ValueError, match=message):
        TextTransformer(**{"vocab_size": 50, "max_length": 24, **options, **kwargs})


# ------------------------------------------------------------------------------------------------ transformers

HF_SMALL: dict[str, Any] = {
    "vocab_size": 50, "max_length": 24, "num_hidden_layers": 2, "hidden_size": 64, "num_attention_heads": 2,
    "intermediate_size": 96,
}  # fmt: skip


@pytest.mark.parametrize("name", ["bert", "modernbert", "electra"])
def test_transformers_encoder_has_the_same_face(name: str) -> None:
    torch.manual_seed(0)
    model = transformers_backbone(name, **HF_SMALL).eval()
    assert model.model.config._attn_implementation == "sdpa"
    assert (model.num_features, model.depth) == (64, 2)
    ids = tokens(10, 6, 0)
    garbage = model.embedding(ids).detach()
    torch.testing.assert_close(model.forward_tokens(ids, garbage), model.forward_tokens(ids))
    garbage[1, 6:] = 100
    with torch.no_grad():
        clean = model.forward_tokens(ids)
        assert torch.equal(clean[1, :6], model.forward_tokens(ids, garbage)[1, :6])
        assert clean.isfinite().all()
        close(model(ids)[1:2], model(ids[1:2, :6]))
    groups = param_groups_layer_decay(model, no_weight_decay_list=model.no_weight_decay(), layer_decay=0.5)
    scales = {p: group["lr_scale"] for group in groups for p in group["params"]}
    assert scales[model.embedding.weight] == 0.25
    assert set(scales.values()) == {0.25, 0.5, 1.0}


def test_transformers_checkpointing_equals_plain() -> None:
    results = []
    for enabled in False, True:
        torch.manual_seed(0)
        model = transformers_backbone("modernbert", grad_checkpointing=enabled, **HF_SMALL).train()
        output = model(tokens(10, 6))
        output.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters()}
        assert all(gradient is not None for gradient in gradients.values())  # nothing unused, as DDP demands
        results.append({"output": output.detach(), **gradients})
    close(results[0], results[1])


def test_transformers_mistakes_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"backbone\.num_layers"):
        transformers_backbone("bert", 50, 24, num_layers=2)
    with pytest.raises(ValueError, match=r"backbone\.name=.*no model type"):
        transformers_backbone(str(tmp_path / "none"), 50, 24)
    saved = transformers_backbone("bert", **HF_SMALL)
    saved.model.save_pretrained(tmp_path / "bert")
    loaded = transformers_backbone(str(tmp_path / "bert"), 50, 24, pretrained=True)
    torch.testing.assert_close(loaded.embedding.weight, saved.embedding.weight)
    with pytest.raises(ValueError, match=r"backbone\.pretrained=weights: give true or false"):
        transformers_backbone("bert", 50, 24, pretrained="weights")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="vocabulary"):
        transformers_backbone(str(tmp_path / "bert"), 51, 24, pretrained=True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'ssl_zoo\[transformers\]'"):
        transformers_backbone("bert", 50, 24)
