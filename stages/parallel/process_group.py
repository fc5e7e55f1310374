"""Connects the ranks of a gang through torch.distributed: NCCL on GPUs, gloo on CPUs."""

from __future__ import annotations

import datetime
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import TCPStore  # torch.distributed re-exports it without declaring that it does

from stages.base import Rank
from stages.parallel.collectives import CollectiveError, Collectives

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@contextmanager
def process_group(rank: Rank, timeout_s: float) -> Iterator[Collectives]:
    """Connect `rank` to the other ranks of its gang for as long as the body runs. Every rank must enter.

    `timeout_s` (seconds) bounds both the rendezvous and every later collective. A gang of one rank needs no
    torch.distributed. Raises CollectiveError if the ranks did not meet in time.
    """
    device = torch.device("cuda", rank.local_index) if rank.uses_gpu else torch.device("cpu")
    if rank.uses_gpu:
        torch.cuda.set_device(device)
    if rank.size == 1:
        yield Collectives(device=device)
        return
    started = time.monotonic()
    try:
        _initialise(rank, datetime.timedelta(seconds=timeout_s))
    except (RuntimeError, ValueError) as error:
        raise CollectiveError(_not_met(rank, error, time.monotonic() - started, timeout_s)) from error
    try:
        yield Collectives(rank.index, rank.size, device)
    finally:
        dist.destroy_process_group()


def _initialise(rank: Rank, timeout: datetime.timedelta) -> None:
    address = urlsplit(rank.rendezvous)
    if address.hostname in LOOPBACK:
        # gloo resolves the host name to find its own address, which can fail; on one machine the loopback will do.
        loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)
        if loopback:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    backend = "nccl" if rank.uses_gpu else "gloo"
    if address.scheme != "tcp":
        dist.init_process_group(
            backend, init_method=rank.rendezvous, rank=rank.index, world_size=rank.size, timeout=timeout
        )
        return
    # torch takes ownership of the descriptor and closes it.
    listener = None if rank.listener is None else os.dup(rank.listener)
    host, is_server = str(address.hostname), rank.index == 0
    store = TCPStore(host, address.port or 0, rank.size, is_server, timeout, master_listen_fd=listener)
    dist.init_process_group(backend, store=store, rank=rank.index, world_size=rank.size, timeout=timeout)


def _not_met(rank: Rank, error: Exception, waited_s: float, timeout_s: float) -> str:
    """The message of a rank that did not meet the others, with what it waited for and by which interface."""
    backend, prefix = ("NCCL", "NCCL") if rank.uses_gpu else ("gloo", "GLOO")
    name = f"{prefix}_SOCKET_IFNAME"
    interface = f"the interface {os.environ[name]} ({name})" if os.environ.get(name) else "the host name's address"
    remedy = "or raise collective_timeout_s" if waited_s >= timeout_s else f"or set {name} on the nodes"
    return (
        f"rank {rank.index} of {rank.size} on {socket.gethostname()} did not meet the other ranks: it gave up after "
        f"{waited_s:.0f} s (collective_timeout_s is {timeout_s:g}). The rendezvous is {rank.rendezvous}; {backend} "
        f"uses {interface}. {str(error).rstrip('.')}. Check that the nodes of the ranks can reach each other there, "
        f"{remedy}"
    )
