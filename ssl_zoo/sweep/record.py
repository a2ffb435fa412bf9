"""`python -m ssl_zoo.sweep.record <run folder> <exit status>`: records a job that could not do so itself.

The batch script of `slurm.py` calls it after each job. What a run has recorded of its own end stays as it is.
"""

import signal
import sys
from pathlib import Path

from ssl_zoo.report import results

QUEUED = {"type": "Queued", "message": "submitted to Slurm, not started yet"}
"""The error of a job that has been submitted, until it starts."""


def record_end(folder: Path, code: int) -> None:
    """Turns results that say "running" or queued into failed ones.

    Args:
        folder: the run folder.
        code: exit status of the job as a shell gives it, 128 + n after signal n.
    """
    record = results.read_results(folder)
    if record["status"] != "running" and record.get("error") != QUEUED:
        return
    number = code - 128
    is_signal = number in set(signal.Signals)
    ending = f"killed by {signal.Signals(number).name}" if is_signal else f"exit code {code}"
    error = {"type": ending, "message": "its output is in output.log"}
    results.write_results(folder, record | {"status": "failed", "error": error})


if __name__ == "__main__":
    record_end(Path(sys.argv[1]), int(sys.argv[2]))
