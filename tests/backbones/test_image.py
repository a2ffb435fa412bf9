"""Image backbones: stems by the size of their feature maps, weights from files, and every file of conf/backbone."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from ssl_zoo.backbones.image import check_view_sizes, exact_convolutions, image_backbone, stem_stride
from ssl_zoo.conformance.precision import BF16_TOLERANCE, bf16_errors
from tests.backbones.test_weights import equal_but, saved

CONF = Path(__file__).parents[2] / "conf"


@pytest.mark.parametrize(
    ("name", "in_chans", "size", "features", "grid"),
    [
        ("resnet10t", 1, 16, 512, 2),
        ("resnet18", 3, 32, 512, 4),
        ("resnet50", 3, 32, 2048, 4),
        ("resnet18", 3, 45, 512, 6),
        ("resnet18", 3, 46, 512, 3),
        ("resnet10t", 3, 64, 512, 4),
        ("resnet50", 3, 65, 2048, 5),
        ("resnet50", 3, 96, 2048, 3),
        ("resnet50", 3, 128, 2048, 4),
        ("convnext_tiny", 3, 32, 768, 2),
        ("convnext_tiny", 3, 65, 768, 4),
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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("convnext_atto", {"depths": [1] * 4, "dims": [8] * 4}),
        ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 24, "num_heads": 2}),
    ],
)
def test_checkpointing_changes_memory_only(name: str, options: dict[str, Any]) -> None:
    """For ResNets, whose running statistics need care, see tests/training/test_running_statistics.py."""
    results, kept = [], []
    for enabled in (False, True):
        torch.manual_seed(0)
        model: Any = image_backbone(name, 3, 16, grad_checkpointing=enabled, **options)
        sizes: list[int] = []
        with saved_tensors_hooks(lambda x, sizes=sizes: sizes.append(x.nbytes) or x, lambda x: x):
            output = model(torch.randn(4, 3, 16, 16))
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad for p in model.parameters())])
        kept.append(sum(sizes))
    torch.testing.assert_close(results[1], results[0])
    assert kept[1] < kept[0] / 2


def test_a_network_without_checkpointing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone.grad_checkpointing=true: timm's dla34 has no checkpointing"):
        image_backbone("dla34", 3, 32, small_stem=False, grad_checkpointing=True)


@pytest.mark.parametrize(("zero_init_last", "start"), [(True, 0.0), (False, 1.0), (None, 0.0)])
def test_residual_branches_start_at_zero_or_not(zero_init_last: bool | None, start: float) -> None:
    model: Any = image_backbone("resnet18", 3, 32, zero_init_last=zero_init_last)
    assert [float(block.bn2.weight.mean()) for block in (*model.layer1, *model.layer4)] == [start] * 4


def test_zero_init_last_of_a_network_without_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"backbone.name=vit_tiny_patch16_224 .*zero_init_last"):
        image_backbone("vit_tiny_patch16_224", 3, 32, zero_init_last=True)
    image_backbone("vit_tiny_patch16_224", 3, 32, zero_init_last=None)


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


def test_cost_follows_the_size_without_a_cliff() -> None:
    """An image costs about what one of 32 pixels does: up to a factor of two, and the ceilings of odd grids."""
    stride = {size: stem_stride("resnet18", size) for size in range(8, 225)}
    assert [stride[size] for size in (8, 32, 45, 46, 64, 90, 91, 128, 224)] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert all(2.75 < size / (8 * stride[size]) < 5.75 for size in range(23, 182))
    costs = {}
    for size in (32, 64, 65, 90):
        model: Any = image_backbone("resnet18", 3, size).eval()
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.zeros(1, 3, size, size))
        costs[size] = counter.get_total_flops() / 1e9
    assert costs[32] == pytest.approx(1.11, rel=0.01)
    assert all(0.5 < cost / costs[32] < 2.5 for cost in costs.values()), costs


@pytest.mark.parametrize(("small_stem", "stride"), [(True, 1), (None, 2), (False, 4)])
def test_a_stem_of_stride_two_is_the_own_convolution_without_the_pooling(small_stem: bool | None, stride: int) -> None:
    torch.manual_seed(0)
    model: Any = image_backbone("resnet18", 3, 64, small_stem).eval()
    assert stem_stride("resnet18", 64, small_stem) == stride
    assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[-1] == 8 // stride
    assert model.conv1.kernel_size == ((3, 3) if small_stem else (7, 7))


def test_a_family_without_small_stem_keeps_its_own_above_64_pixels() -> None:
    assert stem_stride("efficientnet_b0", 65) == stem_stride("efficientnet_b0", 32, small_stem=False) == 4
    for given in ((64, None), (224, True)):
        with pytest.raises(ValueError, match=r"backbone\.small_stem=false"):
            stem_stride("efficientnet_b0", *given)


def test_large_stem_on_request() -> None:
    model: Any = image_backbone("resnet18", 3, 32, small_stem=False)
    assert model.conv1.stride == (2, 2)
    assert model.forward_features(torch.randn(2, 3, 32, 32)).shape[-1] == 1


@pytest.mark.parametrize(
    ("name", "size", "small_stem", "tokens_in_grid"),
    [
        ("vit_tiny_patch16_224", 8, None, 4),
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


def test_the_stem_shrinks_after_loading(tmp_path: Path) -> None:
    state, path = saved(tmp_path, "resnet18", 3, 224)
    model = image_backbone("resnet18", 3, 32, pretrained=path)
    assert equal_but(model, state, "conv1.weight")
    torch.testing.assert_close(model.state_dict()["conv1.weight"], state["conv1.weight"][:, :, 2:5, 2:5] * (7 / 3))
    state, path = saved(tmp_path, "resnet18", 3, 32)
    assert equal_but(image_backbone("resnet18", 3, 32, pretrained=path), state)
    state, path = saved(tmp_path, "convnext_atto", 3, 32)
    assert equal_but(image_backbone("convnext_atto", 3, 32, pretrained=path), state)


@pytest.mark.parametrize(
    ("name", "size", "side", "fits"),
    [
        ("resnet10t", 8, 4, False),
        ("resnet18", 16, 8, False),
        ("resnet18", 32, 16, True),
        ("vit_tiny_patch16_224", 8, 2, False),
        ("vit_tiny_patch16_224", 8, 4, True),
        ("swin_tiny_patch4_window7_224", 224, 224, True),
    ],
)
def test_local_crops_of_one_position_are_refused(name: str, size: int, side: int, fits: bool) -> None:
    kwargs: dict[str, Any] = {"depth": 1} if name.startswith("vit") else {}
    model = image_backbone(name, 3, size, **kwargs)
    check_view_sizes(model, name, [size, size], 3)
    if fits:
        check_view_sizes(model, name, [size, side, side], 3)
    else:
        with pytest.raises(ValueError, match=rf"backbone\.name={name} leaves local crops of {side} pixels"):
            check_view_sizes(model, name, [size, side, side], 3)
    assert model.training


@pytest.mark.parametrize("kernel", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions_of_small_inputs_are_exact_under_autocast(kernel: int, stride: int) -> None:
    """Outputs keep autocast's dtype and float32's value; larger inputs are computed as before."""
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 16, kernel, stride=stride, padding=kernel // 2)
    network = nn.Sequential(plain)
    for side in (1, 2, 3, 4, 8):
        images = torch.randn(8, 3, side, side)
        expected = plain(images)
        exact_convolutions(network)
        torch.testing.assert_close(network(images), expected, rtol=0, atol=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = network(images)
        assert output.dtype == torch.bfloat16
        assert output.shape == expected.shape
        torch.testing.assert_close(output.float(), expected, rtol=2e-2, atol=2e-2)
        assert max(bf16_errors(network, images).values()) < BF16_TOLERANCE


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


SHALLOW = {
    "convnext": {"depths": (1, 1, 1, 1)},
    "resnet18": {"layers": (1, 1, 1, 1)},
    "resnet50": {"layers": (1, 1, 1, 1)},
    "vit": {"depth": 1},
    "text": {"depth": 1},
    "bert": {"num_hidden_layers": 1},
    "modernbert": {"num_hidden_layers": 1},
}


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("path", sorted((CONF / "backbone").glob("*.yaml")), ids=lambda path: path.stem)
def test_bf16_gradients_are_those_of_float32(path: Path, size: int) -> None:
    """At every size of view, with NaN in unwritten memory; for crops of digits some convolutions have inputs of 1x1."""
    if "convnext" in path.stem and size == 8:
        pytest.skip("takes no images of 8 pixels")
    with initialize_config_dir(str(CONF), version_base=None):
        config = compose(overrides=[f"+backbone={path.stem}"])
    facts = {"in_chans": 3, "image_size": size, "vocab_size": 512, "max_length": size, "pad_id": 0, "sep_id": 3}
    shallow = SHALLOW.get(path.stem.partition("_")[0], {})
    torch.manual_seed(0)
    model = instantiate(OmegaConf.merge({"facts": facts}, config).backbone, _convert_="all", **shallow)
    if "in_chans" in config.backbone:
        views = [torch.randn(4, 3, side, side) for side in (size, size // 2)]
    else:
        views = [torch.randint(5, 512, (4, length)) for length in (size, size // 2)]
    for view in views:
        errors = bf16_errors(model, view)
        assert max(errors.values()) < BF16_TOLERANCE, max(errors, key=lambda name: errors[name])


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "deit_tiny_distilled_patch16_224", "resnet10t"])
def test_views_of_several_sizes_are_taken_where_the_constructor_knows_how(name: str) -> None:
    small = {"depths": (1, 1, 1, 1)} if "swin" in name else {"depth": 1} if "deit" in name else {}
    model = image_backbone(name, in_chans=3, image_size=224, **small).eval()
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 96, 96)).shape == (1, model.num_features)
