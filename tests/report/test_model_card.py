from ssl_zoo.report.model_card import model_card

MANIFEST = {
    "modality": "image",
    "num_features": 512,
    "input": {"image_size": 32, "mean": [0.5]},
    "ssl_zoo": "0.1.0",
    "training": {
        "method": "simclr",
        "data": "cifar10",
        "seed": 0,
        "budget": {"kind": "epochs", "value": 100, "flops": None},
        "metrics": {"knn/top1": 0.8712, "init/knn/top1": 0.31, "loss": None},
        "overrides": ["method=simclr", "data=cifar10"],
    },
}


def test_a_card_says_what_a_user_needs() -> None:
    card = model_card(MANIFEST, "timm", "model = ...")
    assert card.startswith("---\nlibrary_name: timm\npipeline_tag: image-feature-extraction\nlicense: unknown\n")
    for text in ("# simclr on cifar10", "```python\nmodel = ...\n```", "- image_size: 32", "- value: 100"):
        assert text in card
    assert "| knn/top1 | 0.31 | 0.8712 |" in card
    assert "python run.py method=simclr data=cifar10" in card
    assert "None" not in card


def test_an_encoder_from_elsewhere_has_a_card_too() -> None:
    card = model_card({**MANIFEST, "training": {}, "modality": "text", "licence": "mit"}, "hf", "x")
    assert "license: mit" in card
    assert "Evaluation" not in card
