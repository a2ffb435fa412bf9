"""The command line: composes a configuration and runs its task."""

import importlib
import logging
import os
import signal
import sys
from pathlib import Path

from ssl_zoo import ending
from ssl_zoo.config import CONF, check_config, explain, quoted
from ssl_zoo.encoder_data import with_encoder_data
from ssl_zoo.method_choice import with_methods
from ssl_zoo.report import display, results
from ssl_zoo.training import cluster, hardware, transcript
from ssl_zoo.training.credentials import MaskCredentials, masked_text
from ssl_zoo.training.stop_signals import Interrupted, ignore_stop_signals, stop_immediately

hardware.tune_allocator()

import hydra  # noqa: E402  (after tune_allocator; torch is imported once the configuration is checked)
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from hydra.types import RunMode  # noqa: E402
from omegaconf import DictConfig, OmegaConf  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402

ONLY_PRINT = {"--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i"}
"""Options of Hydra with which a command only prints."""

OmegaConf.register_new_resolver("run_name", cluster.run_name, use_cache=True, replace=True)


def main() -> None:
    """Runs the command line. Exit status: 0; 1 failed run or sweep; 2 mistake of the user; 128 + n signal n."""
    cluster.share_run_id(sys.argv[1:])
    display.replace_unencodable()
    if ONLY_PRINT & set(sys.argv):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends silently
    sys.argv[1:] = with_methods(sys.argv[1:])
    is_sweep = bool({"-m", "--multirun"} & set(sys.argv))
    sys.argv = [quoted(argument, is_sweep) for argument in sys.argv]
    os.environ["HYDRA_FULL_ERROR"] = "1"  # raises errors instead of printing them
    logging.raiseExceptions = False  # no traceback for each line that a closed terminal refuses
    try:
        with stop_immediately():
            check_run_folder_is_given(sys.argv)
            if not is_sweep:  # each job of a sweep is a command line of its own
                sys.argv[1:] = with_encoder_data(sys.argv[1:])
            run_job()
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # from composing; see also `run_job`
        print(f"error: {masked_text(explain(error, CONF))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        key = "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
        print(f"error: {key} cannot be made or written: {error}. Give another folder", file=sys.stderr)
        sys.exit(2)


def check_run_folder_is_given(arguments: list[str]) -> None:
    """Raises ValueError for a run folder that is the working folder, before Hydra writes files to it."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in ("hydra.run.dir", "hydra.sweep.dir") and value.strip("'\"") in ("", ".", "./", "null"):
            raise ValueError(f"{argument}: give a folder for the run alone, or leave {key} out for one of its own")


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def run_job(cfg: DictConfig) -> float | None:
    """Runs one task in the folder that Hydra created; exits with a status other than 0 unless it succeeds.

    Returns:
        The metric that `objective` names, for a sweeper; None without one.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    transcript.start_transcript()
    for handler in logging.getLogger().handlers:
        handler.addFilter(MaskCredentials())
    try:
        check_config(cfg)
        task = importlib.import_module(f"ssl_zoo.tasks.{cfg.task}")  # late, because importing torch takes seconds
        getattr(task, cfg.task)(cfg, folder)
        return None if cluster.global_rank() else results.objective_value(folder, cfg.objective)
    except (SystemExit, KeyboardInterrupt) as end:
        if cluster.global_rank() > 0:
            sys.exit(0)  # rank 0 reports; Lightning or Slurm would kill it if another process failed
        ignore_stop_signals()  # Slurm sends SIGTERM more than once
        if cfg.task == "pretrain" and not cfg.data.get("check"):
            ending.record_ending(cfg, folder, "interrupted")
        if isinstance(end, Interrupted):
            cluster.requeue(end.signal, cfg.trainer.requeue)
        sys.exit(end.code if isinstance(end, Interrupted) else 128 + signal.SIGINT)
    except Exception as error:
        status = ending.handle_failure(cfg, folder, ending.root_cause(error))
        if HydraConfig.get().mode == RunMode.MULTIRUN:  # called by a launcher, which has other jobs
            raise
        sys.exit(status)
    finally:
        transcript.stop_transcript()


if __name__ == "__main__":
    main()
