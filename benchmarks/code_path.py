"""How much code a run passes through: files of the package loaded and entered, lines of the functions that were called.

    python benchmarks/code_path.py [CHECKOUT] method=byol data=cifar10 budget.epochs=null budget.steps=2 ...

CHECKOUT is a folder with a checkout, this one if left out; what follows are the overrides of the run. Lines are counted
from the first to the last line of a function, its docstring included.
"""

import runpy
import sys
import threading
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

IS_FUNCTION = 0x1  # CO_OPTIMIZED, which the bodies of modules and classes lack


def main() -> None:
    """Runs the command in this process and prints the counts."""
    overrides = sys.argv[1:]
    root = Path(__file__).resolve().parents[1]
    if overrides and "=" not in overrides[0]:
        root = Path(overrides.pop(0)).resolve()
    sys.path.insert(0, str(root))
    called: set[CodeType] = set()

    def is_ours(file: str | None) -> bool:
        return file is not None and file.startswith(f"{root}/") and ".venv" not in file

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and is_ours(frame.f_code.co_filename):
            called.add(frame.f_code)

    threading.setprofile(note)
    sys.setprofile(note)
    sys.argv = ["run.py", *overrides]
    try:
        runpy.run_path(str(root / "run.py"), run_name="__main__")
    finally:
        sys.setprofile(None)
    functions = [code for code in called if code.co_flags & IS_FUNCTION and not code.co_name.startswith("<")]
    lines = sum(max(line for *_, line in code.co_lines() if line) - code.co_firstlineno + 1 for code in functions)
    loaded = sum(is_ours(getattr(module, "__file__", None)) for module in list(sys.modules.values()))
    entered = len({code.co_filename for code in functions})
    print(f"files loaded {loaded}, files entered {entered}, functions {len(functions)}, their lines {lines:,}")


if __name__ == "__main__":
    main()
