"""`run(2, function, ...)` for tests of code that spans processes; the conformance kit uses the same."""

from ssl_zoo.conformance.processes import run_processes as run

__all__ = ["run"]
