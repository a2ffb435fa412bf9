"""Backbones: masks, positions and documents against the definition; stems by the size of their feature maps."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from timm.layers import set_fused_attn
from timm.optim import create_optimizer_v2, param_groups_layer_decay
from torch import Tensor, nn

from ssl_zoo import backbones
from ssl_zoo.backbones import TextTransformer, image_backbone, load_weights, transformers_backbone

CONF = Path(__file__).parents[1] / "conf"
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


def test_no_mask_reaches_the_blocks_when_nothing_is_padded() -> None:
    model = text()
    assert model._mask_and_positions(tokens(8, 8))[0] is None
    mask = model._mask_and_positions(tokens(8, 5))[0]
    assert mask is not None
    assert mask.shape == (2, 1, 1, 8)
    assert mask.dtype == torch.bool


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
        text()._valid(ids)


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
    real = backbones.checkpoint

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(backbones, "checkpoint", counted)
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
    with pytest.raises(ValueError, match="vocabulary"):
        transformers_backbone(str(tmp_path / "bert"), 51, 24, pretrained=True)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install 'ssl_zoo\[transformers\]'"):
        transformers_backbone("bert", 50, 24)


# ------------------------------------------------------------------------------------------------------ images


@pytest.mark.parametrize(
    ("name", "in_chans", "size", "features", "grid"),
    [
        ("resnet10t", 1, 16, 512, 2),
        ("resnet18", 3, 32, 512, 4),
        ("resnet50", 3, 32, 2048, 4),
        ("resnet50", 3, 65, 2048, 3),  # above 64 pixels the stem stays: reduction 32
        ("convnext_tiny", 3, 32, 768, 2),
        ("convnext_tiny", 3, 96, 768, 3),
        ("convnext_tiny", 3, 64, 768, 4),
    ],
)
def test_convolutional_nets(name: str, in_chans: int, size: int, features: int, grid: int) -> None:
    torch.manual_seed(0)
    model: Any = image_backbone(name, in_chans, size)
    assert model.training
    images = torch.randn(2, in_chans, size, size)
    model.eval()
    with torch.no_grad():
        assert model.forward_features(images).shape == (2, features, grid, grid)
        output = model(images)
    assert output.shape == (2, model.num_features) == (2, features)
    assert (output[0] - output[1]).abs().max() > 0


@pytest.mark.parametrize("name", ["resnet10t", "resnet18", "seresnet18", "resnet50d"])
def test_small_resnet_stem_keeps_the_resolution(name: str) -> None:
    torch.manual_seed(0)
    model: Any = image_backbone(name, 3, 32, small_stem=True)
    sizes = []
    model.layer1.register_forward_hook(lambda module, args, output: sizes.append(args[0].shape[-1]))
    model(torch.randn(2, 3, 32, 32))
    assert sizes == [32]
    first = model.get_submodule(model.pretrained_cfg["first_conv"])
    assert first.stride == (1, 1)
    assert first.kernel_size == (3, 3)
    assert first.weight.shape[-2:] == (3, 3)
    fan_out = first.out_channels * 9
    assert float(first.weight.std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)


def test_large_stem_on_request() -> None:
    model: Any = image_backbone("resnet18", 3, 32, small_stem=False)
    assert model.conv1.stride == (2, 2)
    assert model.forward_features(torch.randn(2, 3, 32, 32)).shape[-1] == 1


@pytest.mark.parametrize(
    ("name", "size", "small_stem", "tokens_in_grid"),
    [
        ("vit_tiny_patch16_224", 16, None, 8),
        ("vit_tiny_patch16_224", 28, None, 7),
        ("vit_tiny_patch16_224", 32, None, 8),
        ("vit_tiny_patch16_224", 224, None, 14),
        ("vit_tiny_patch16_224", 32, False, 2),
        ("eva02_tiny_patch14_224", 32, None, 8),
        ("deit_tiny_patch16_224", 32, None, 8),
        ("beit_base_patch16_224", 32, None, 8),
    ],
)
def test_vision_transformers(name: str, size: int, small_stem: bool | None, tokens_in_grid: int) -> None:
    torch.manual_seed(0)
    model: Any = image_backbone(name, 3, size, small_stem, depth=2).eval()
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        output = model(images)
    assert model.patch_embed.grid_size == (tokens_in_grid, tokens_in_grid)
    assert output.shape == (2, model.num_features)
    assert (output[0] - output[1]).abs().max() > 0


def test_num_features_is_the_width_of_the_output() -> None:
    model: Any = image_backbone("mobilenetv3_small_050", 3, 96)  # timm says 288; 1024 come out
    assert model(torch.randn(2, 3, 96, 96)).shape == (2, model.num_features) == (2, 1024)


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("resnet81", {}, r"backbone\.name=resnet81.*resnet18"),
        ("resnet18.bogus", {}, "bogus"),
        ("resnet18", {"dropp": 1}, "dropp"),
        ("efficientnet_b0", {}, r"backbone\.small_stem=false"),
        ("convnext_tiny", {"image_size": 8}, "8 pixels"),
        ("resnet18", {"pretrained": "/no/such/file.pt"}, r"backbone\.pretrained=/no/such/file\.pt"),
    ],
)
def test_unusable_image_options_are_named(name: str, kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        image_backbone(name, **{"in_chans": 3, "image_size": 32, **kwargs})


def test_no_network_is_a_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: Any, **kwargs: Any) -> None:
        raise OSError("cannot reach the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"resnet18.*cannot reach the hub.*backbone\.pretrained"):
        image_backbone("resnet18", 3, 32, pretrained=True)


@pytest.mark.parametrize(("kind", "prefix"), [("torch", ""), ("torch", "method.backbone."), ("safetensors", "module.")])
def test_local_weights(kind: str, prefix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = image_backbone("resnet10t", 3, 32)
    state = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    path = tmp_path / f"weights.{'safetensors' if kind == 'safetensors' else 'pt'}"
    if kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save({"state_dict": {**state, "method.head.weight": torch.ones(2, 2)}}, path)
    with caplog.at_level("INFO"):
        model = image_backbone("resnet10t", 3, 32, pretrained=str(path))
    torch.testing.assert_close(dict(model.state_dict()), dict(source.state_dict()))
    count = sum(tensor.is_floating_point() for tensor in source.state_dict().values())
    assert f"{count} of {count} tensors match" in caplog.text


def test_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save(image_backbone("resnet18", 3, 32).state_dict(), path)
    with pytest.raises(ValueError, match=r"of \d+ tensors match.*90 %"):
        load_weights(image_backbone("resnet50", 3, 32), str(path))
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(ValueError, match="not one of weights"):
        load_weights(nn.Linear(2, 2), str(path))


# ------------------------------------------------------------------------------------------------------- conf


@pytest.mark.parametrize("path", sorted((CONF / "backbone").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_builds(path: Path) -> None:
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(overrides=[f"+backbone={path.stem}"])
    facts = {"in_chans": 3, "image_size": 32, "vocab_size": 512, "max_length": 64, "pad_id": 0, "sep_id": 3}
    merged = OmegaConf.merge({"facts": facts}, config)
    with torch.device("meta"):
        model = instantiate(merged.backbone, _convert_="all")
    assert model.num_features in {128, 192, 256, 384, 512, 768, 2048}
    if "name" not in merged.backbone or "in_chans" in merged.backbone:  # transformers looks into its mask
        inputs = torch.zeros(2, 3, 32, 32) if "in_chans" in merged.backbone else torch.ones(2, 8, dtype=torch.int64)
        assert model(inputs.to("meta")).shape == (2, model.num_features)
