"""Runs a function in several gloo processes on this machine."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

# Processes are not forked from this one, whose threads and autograd engine would not survive a fork. A fork server that
# has imported torch makes each start fast.
multiprocessing.set_forkserver_preload(["torch", "timm", "ssl_zoo.functional", "ssl_zoo.conformance.processes"])


def _serve(
    rank: int, world_size: int, port: int, function: Callable[..., Any], args: tuple[Any, ...], out: Any
) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world_size, timeout=timedelta(seconds=120))
    try:
        out[rank] = function(*args)
    finally:
        dist.destroy_process_group()


def run_processes(world_size: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Calls function(*args) in `world_size` processes; returns their results by rank, raises if any of them raises."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with mp.get_context("forkserver").Manager() as manager:
        out = manager.dict()
        mp.start_processes(_serve, (world_size, port, function, args, out), world_size, start_method="forkserver")
        return [out[rank] for rank in range(world_size)]
