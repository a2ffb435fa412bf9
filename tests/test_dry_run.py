"""What a configuration promises is checked before any data is read."""

import pytest

from ssl_zoo import dry_run
from ssl_zoo.conformance.subjects import method_names
from tests.test_build import composed


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["method.temperature=0"], "method.temperature=0"),
        (["backbone.name=resnet19"], "backbone.name=resnet19"),
        (["budget.steps=3"], "exactly one of"),
        (["optimizer.lr=0"], "optimizer.lr=0"),
        (["checkpoint=nowhere"], "checkpoint=nowhere"),
        (["+trainer.max_epochs=3"], "trainer.max_epochs"),
        (["method=dino", "views=multicrop", "data.image_size=16"], "local crops of 8 pixels"),
    ],
)
def test_a_mistake_is_found_before_the_data_is_read(overrides: list[str], said: str) -> None:
    """The folder does not exist, and nobody looks."""
    with pytest.raises(Exception, match=said) as raised:
        dry_run.dry_run(composed("data=imagenet", "data.path=nowhere", *overrides))
    assert "nowhere" not in str(raised.value).replace("checkpoint=nowhere", "")


@pytest.mark.parametrize("name", method_names())
def test_every_method_passes_its_rehearsal(name: str) -> None:
    dry_run.dry_run(composed(f"method={name}"))


def test_a_backbone_that_cannot_take_local_crops_is_refused_before_the_data_is_read() -> None:
    small = (
        "data=imagenet",
        "data.path=nowhere",
        "data.image_size=128",
        "views=multicrop",
        "backbone.small_stem=false",
    )
    with pytest.raises(ValueError, match="views: the backbone, made for images of 128 pixels, takes no view of 64"):
        dry_run.dry_run(composed(*small, "method=dino", "backbone.name=mixer_s32_224"))
    dry_run.dry_run(composed(*small, "method=dino", "backbone.name=resnet10t"))


def test_a_batch_that_processes_cannot_share_is_refused_before_the_data_is_read() -> None:
    with pytest.raises(ValueError, match=r"data.batch_size=65 cannot be shared evenly by 2 processes.*multiple of 2"):
        dry_run.dry_run(composed("trainer=ddp_cpu", "data.batch_size=65"))
