"""Whose a run folder is, what may differ when a run goes on in it, and that nothing is written before that is known."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ssl_zoo.report import results
from ssl_zoo.training import run_folder
from ssl_zoo.training.checkpoints import SafeCheckpointIO
from ssl_zoo.training.run_folder import FolderState, FolderTaken, inspect_folder, may_record, resume_differences
from tests.training.test_checkpoints import contents, damage_empty, save

CONFIG = {
    "method": {"lr": 1.0},
    "logger": {},
    "finetune": {},
    "budget": {"steps": 7},
    "trainer": {"devices": 1, "precision": "auto"},
}


def changed(**groups: dict[str, Any]) -> dict[str, Any]:
    return {key: value | groups.get(key, {}) for key, value in CONFIG.items()}  # type: ignore[operator]


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A folder with a run that was interrupted at step 7."""
    results.write_json(tmp_path / "config.json", CONFIG)
    about = {"ssl_zoo": {"card": {"config": CONFIG}}}
    SafeCheckpointIO().save_checkpoint(contents() | about, tmp_path / "checkpoints" / "step-00000007.ckpt")
    results.write_results(tmp_path, results.empty_results("interrupted", run_id="ab12"))
    return tmp_path


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_fresh_folder_is_anyones(tmp_path: Path) -> None:
    assert inspect_folder(tmp_path, CONFIG) == FolderState(None, {}, {})
    run_folder.claim_run_folder(
        tmp_path, inspect_folder(tmp_path, CONFIG), CONFIG, results.empty_results("running", run_id="ab12")
    )
    assert json.loads((tmp_path / "config.json").read_text()) == CONFIG
    assert (
        inspect_folder(tmp_path, changed(method={"lr": 3.0})).checkpoint is None
    )  # nothing was done with the first one


@pytest.mark.parametrize(
    "groups",
    [
        {"logger": {"wandb": {"project": "x"}}},
        {"budget": {"steps": 9}},
        {"trainer": {"devices": 2}},
        {"trainer": {"precision": "32-true"}},
        {"finetune": {"lr": 0.1}},  # of another task
    ],
)
def test_what_leaves_order_and_views_alone_may_differ(interrupted: Path, groups: dict[str, Any]) -> None:
    before = listing(interrupted)
    found = inspect_folder(interrupted, changed(**groups))
    assert found.checkpoint == interrupted / "checkpoints" / "step-00000007.ckpt"
    assert len(found.changed) == 1 or "logger" in groups
    assert not found.is_over
    assert listing(interrupted) == before


def test_another_configuration_is_refused_by_key(interrupted: Path) -> None:
    before = listing(interrupted)
    with pytest.raises(FolderTaken, match=r"method\.lr=2\.0 \(was 1\.0\)"):
        inspect_folder(interrupted, changed(method={"lr": 2.0}))
    assert listing(interrupted) == before


def test_a_list_that_became_three_keys_is_the_same_setting(interrupted: Path) -> None:
    old = changed(method={"teacher_temperature": [0.04, 0.07, 0.3]})
    results.write_json(interrupted / "config.json", old)
    now = {"teacher_temperature": 0.07, "teacher_temperature_start": 0.04, "teacher_temperature_warmup": 0.3}
    assert not inspect_folder(interrupted, changed(method=now)).changed
    with pytest.raises(FolderTaken, match=r"method\.teacher_temperature_start=0\.05 \(was 0\.04\)"):
        inspect_folder(interrupted, changed(method=now | {"teacher_temperature_start": 0.05}))


def test_a_run_with_damaged_checkpoints_only_is_refused(interrupted: Path) -> None:
    damage_empty(interrupted / "checkpoints" / "step-00000007.ckpt")
    before = listing(interrupted)
    with pytest.raises(FolderTaken, match=r"all 1 checkpoints of the run there are damaged.*step-00000007\.ckpt"):
        inspect_folder(interrupted, CONFIG)
    assert listing(interrupted) == before


@pytest.mark.parametrize("text", [None, "{", "[]", "\x00"])
def test_without_its_configuration_the_one_inside_the_checkpoint_counts(interrupted: Path, text: str | None) -> None:
    file = interrupted / "config.json"
    file.unlink() if text is None else file.write_text(text)
    if text == "[]":
        with pytest.raises(FolderTaken, match="settings are lost"):
            inspect_folder(interrupted, CONFIG)
        return
    assert inspect_folder(interrupted, CONFIG).checkpoint is not None
    with pytest.raises(FolderTaken, match=r"method\.lr=2\.0 \(was 1\.0\)"):
        inspect_folder(interrupted, changed(method={"lr": 2.0}))


def test_a_run_whose_settings_nobody_knows_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "checkpoints" / "step-00000007.ckpt")
    with pytest.raises(FolderTaken, match=r"config\.json is missing or damaged"):
        inspect_folder(tmp_path, CONFIG)


def test_damaged_results_are_made_again_or_named(interrupted: Path, caplog: pytest.LogCaptureFixture) -> None:
    (interrupted / "results.json").write_text("{")
    assert inspect_folder(interrupted, CONFIG).checkpoint is not None
    assert "results.json" in caplog.messages[0]
    assert "written again" in caplog.messages[0]
    shutil.rmtree(interrupted / "checkpoints")
    with pytest.raises(FolderTaken, match=r"results\.json.*no checkpoint to make it from"):
        inspect_folder(interrupted, CONFIG)


@pytest.mark.parametrize(
    "name", ["config.json", "results.json", "metrics.jsonl", "tokenizer.json", "checkpoints/step-00000009.ckpt"]
)
def test_a_folder_in_place_of_a_file_is_refused_by_name(
    name: str, interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ZOO_RUN_ID", "ab12")
    (interrupted / name).unlink(missing_ok=True)
    (interrupted / name).mkdir()
    with pytest.raises(FolderTaken, match=f"{Path(name).name} there is a folder.*Delete it"):
        inspect_folder(interrupted, CONFIG)
    assert may_record(interrupted) == (name != "results.json")


def test_a_completed_run_whose_last_weights_are_damaged_makes_them_again(interrupted: Path) -> None:
    spent = {"budget": {"kind": "steps", "value": 9}, "checkpoint_step": 9}
    results.write_results(interrupted, results.empty_results("completed", method="simclr", data="digits", **spent))
    last = interrupted / "checkpoints" / "step-00000009.ckpt"
    shutil.copy(interrupted / "checkpoints" / "step-00000007.ckpt", last)
    assert inspect_folder(interrupted, CONFIG).is_over
    damage_empty(last)
    found = inspect_folder(interrupted, CONFIG)
    assert (found.is_over, found.checkpoint) == (False, interrupted / "checkpoints" / "step-00000007.ckpt")


def test_a_completed_run_goes_on_only_for_more(interrupted: Path) -> None:
    spent = {"budget": {"kind": "steps", "value": 7}, "checkpoint_step": 7}
    results.write_results(interrupted, results.empty_results("completed", method="simclr", data="digits", **spent))
    assert inspect_folder(interrupted, CONFIG).is_over
    assert inspect_folder(interrupted, changed(trainer={"devices": 2})).is_over
    found = inspect_folder(interrupted, changed(budget={"steps": 9}))
    assert not found.is_over
    run_folder.claim_run_folder(interrupted, found, changed(budget={"steps": 9}), results.empty_results("running"))
    assert results.read_results(interrupted / "results-step-00000007.json")["status"] == "completed"
    assert results.read_results(interrupted)["status"] == "running"


def test_the_end_of_a_process_is_recorded_in_its_own_folder_only(
    interrupted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_ZOO_RUN_ID", "cd34")
    assert not may_record(interrupted)
    (interrupted / "results.json").unlink()
    assert not may_record(interrupted)
    shutil.rmtree(interrupted / "checkpoints")
    assert may_record(interrupted)
    results.write_results(interrupted, results.empty_results("running", run_id="ab12"))  # at work, perhaps
    assert not may_record(interrupted)
    monkeypatch.setenv("SSL_ZOO_RUN_ID", "ab12")
    assert may_record(interrupted)
    failed = results.empty_results("failed", run_id="ab12", error={"type": "E", "message": "m"})
    results.write_results(interrupted, failed)
    assert may_record(interrupted)
    monkeypatch.setenv("WORLD_SIZE", "2")  # another process of the run was first
    assert not may_record(interrupted)


def test_a_folder_is_one_runs_alone(tmp_path: Path) -> None:
    for _ in range(2):  # it is free again afterwards
        with (
            run_folder.lock_folder(tmp_path),
            pytest.raises(FolderTaken, match="another run"),
            run_folder.lock_folder(tmp_path),
        ):
            pytest.fail("two runs in one folder")


def test_a_refused_command_leaves_no_lock(tmp_path: Path) -> None:
    def refuse() -> None:
        with run_folder.lock_folder(tmp_path):
            raise FolderTaken("not ours")

    with pytest.raises(FolderTaken, match="not ours"):
        refuse()
    assert not list(tmp_path.iterdir())
    (tmp_path / ".lock").touch()  # an earlier run's
    with pytest.raises(FolderTaken, match="not ours"):
        refuse()
    assert (tmp_path / ".lock").exists()


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("text")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match=r"\.lock cannot be opened.*Delete it"), run_folder.lock_folder(tmp_path):
        pytest.fail("locked")
    assert (tmp_path / "precious").read_text() == "text"


def test_what_a_resumed_run_has_in_common_is_said() -> None:
    session = {"precision": "bf16-mixed", "processes": 1, "device": "x", "torch": "2"}
    assert resume_differences(session, session, FolderState(None, {}, {})) == []
    assert resume_differences({}, session, FolderState(None, {}, {})) == []
    lines = resume_differences(session, session | {"precision": "32-true", "processes": 2}, FolderState(None, {}, {}))
    assert lines[0].startswith("precision: 32-true, before bf16-mixed: batches, views and masks stay the same")
    assert "sampled per process" in lines[1]
    assert "not bit for bit" in lines[2]
    lines = resume_differences(
        session, session, FolderState(None, {}, {"budget.steps": (9, 7), "evaluators.knn": (1, None)})
    )
    assert lines[0].startswith("budget.steps=9 (was 7): batches and views stay the same, all schedules follow")


def test_the_configuration_of_the_run_that_goes_on(interrupted: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert run_folder.recorded_config(interrupted) == CONFIG
    (interrupted / "config.json").unlink()
    assert run_folder.recorded_config(interrupted) == CONFIG  # the checkpoint's
    empty = tmp_path_factory.mktemp("empty")
    assert run_folder.recorded_config(empty) is None
    results.write_json(empty / "config.json", CONFIG)
    results.write_results(empty, results.empty_results("interrupted", run_id="ab12"))
    assert run_folder.recorded_config(empty) is None  # another configuration may begin here
