"""`hydra/launcher=ray`: a local cluster, one of whose workers is killed."""

import sys
from pathlib import Path

import pytest
from hydra.errors import CompactHydraException

from ssl_zoo.sweep.ray import RayLauncher
from tests.sweep.test_launcher import CONFIG, STUB, Sweep, make_place, start

KILLED_ONCE = """
def dies_once():  # its worker, too, as when a machine is lost
    if not os.path.exists(os.path.join(folder, "died")):
        Path(folder, "died").touch()
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    write()
"""


@pytest.mark.slow
def test_all_jobs_complete_though_a_worker_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    place = make_place(tmp_path)
    (place / "conf" / "config.yaml").write_text(CONFIG.replace("grace: 0.5", "cpus: 1"))
    (place / "stub.py").write_text(STUB.replace("def completes()", f"{KILLED_ONCE}\ndef completes()"))
    quiet = {"RAY_DISABLE_MEMORY_MONITOR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    process = start(place, "hydra/launcher=ray", "kind=completes,dies_once", "seed=0,1", env=quiet)
    out, err = process.communicate(timeout=300)
    done = Sweep(place, process.returncode, out, err)
    assert done.code == 0, err
    assert [done.read(number)["status"] for number in range(4)] == ["completed"] * 4
    assert [(place / "sweep" / str(number) / "died").exists() for number in range(4)] == [False, False, True, True]
    assert "job dies_once sweep/2\njob dies_once sweep/2\n" in (place / "sweep" / "2" / "output.log").read_text()
    assert (place / "sweep" / "report.md").exists()


def test_a_missing_package_and_wrong_settings_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    about = {"hydra_context": None, "task_function": None, "config": OmegaConf.create({})}
    launcher = RayLauncher("ssl_zoo.run", None, cpus=1, gpus=-1, retries=3)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CompactHydraException, match=r"hydra/launcher=ray: not installed\. Install it: pip install ray"):
        launcher.setup(**about)  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray", object())
    with pytest.raises(CompactHydraException, match=r"hydra\.launcher\.gpus=-1: give 0 or more"):
        launcher.setup(**about)  # type: ignore[arg-type]
