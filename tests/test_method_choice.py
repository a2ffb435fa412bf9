from ssl_zoo.config import CONF
from ssl_zoo.method_choice import BUDGET, FOR_IMAGES, FOR_TEXT, with_methods


def test_other_commands_stay() -> None:
    for given in ([], ["method=byol"], ["-m", "method=byol,simclr"]):
        assert with_methods(given) == given


def test_a_sweep_over_methods_at_one_budget() -> None:
    images = f"method={','.join(FOR_IMAGES)}"
    assert with_methods(["method=auto"]) == ["-m", images, BUDGET]
    given = ["data=folder", "data.path=pictures", "method=auto", "hydra.run.dir=out", "budget.minutes=2"]
    assert with_methods(given) == ["-m", images, *given[:2], "hydra.sweep.dir=out", "budget.minutes=2"]
    for data in ("text_folder", "stdlib_docs", "imdb"):
        assert with_methods(["-m", "method=auto", f"data={data}"])[1] == f"method={','.join(FOR_TEXT)}"


def test_the_methods_exist() -> None:
    assert all((CONF / "method" / f"{name}.yaml").exists() for name in {*FOR_IMAGES, *FOR_TEXT})
