"""`python -m ssl_zoo.report`."""

import subprocess
import sys
from pathlib import Path


def test_command_line_says_a_mistake_in_one_line() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "ssl_zoo.report", "none"], capture_output=True, text=True, cwd=Path.cwd()
    )
    assert run.returncode == 2
    assert run.stderr == "error: none: no such folder. Give run folders, or folders that hold some\n"
