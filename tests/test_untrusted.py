import pytest

from ssl_zoo.untrusted import check_plain


@pytest.mark.parametrize("value", [None, 1, 0.5, True, "resnet18", "timm/vit_tiny.augreg", [1, "avg"], ["a", None]])
def test_plain_values_pass(value: object) -> None:
    check_plain("key", value, "file")


@pytest.mark.parametrize(
    "value",
    ["/etc/passwd", "http://host/x", "${oc.env:HOME}", "a b", "../x/y", {"_target_": "os.system"}, [["${x}"]], b"x"],
)
def test_anything_else_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match=r"key.* of the file"):
        check_plain("key", value, "file")
