"""The shared head has the layers the papers name."""

from torch import nn

from ssl_zoo.heads import mlp


def kinds(module: nn.Sequential) -> list[str]:
    return [type(layer).__name__ for layer in module]


def test_layers_and_biases() -> None:
    head = mlp(4, 8, 3)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head[0].bias is None
    assert head[3].bias is not None
    assert kinds(mlp(4, 3)) == ["Linear"]
    normed = mlp(4, 8, 8, 3, last_norm=True)
    assert kinds(normed) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert normed[6].bias is None
    assert [layer.out_features for layer in normed if isinstance(layer, nn.Linear)] == [8, 8, 3]
