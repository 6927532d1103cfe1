"""Several processes that train one run, as torchrun starts them: how they meet, what they share, how they end together.

torchrun says in the environment who is who, and its agent keeps a store of keys that outlives the processes. They sum
by gloo, and by NCCL what is on CUDA devices where each has one of its own. Of those that fail the first leaves a note
in the store, and every process has a thread that looks for it: none waits for one that is gone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import platform
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from metarl.agents.ranks import Ranks
from metarl.envs.text import one_line
from metarl.errors import LONGEST, RunError, UsageError, describe
from metarl.provenance import VERSION
from metarl.training.failures import Failures
from metarl.training.network import interface_towards

T = TypeVar("T")

MEET_S = 300.0
"""Longest time that processes wait for each other at the start of a launch."""
COLLECTIVE_S = 1800.0
"""Longest time that a process waits for the others in a sum. A failed process is noticed much earlier."""
POLL_S = 0.05
"""Time between two looks for a key."""
VERSIONS = ("torch", "numpy", "mujoco")
"""Packages that must have the same version in all processes, so that their results agree."""


class LostRank(ConnectionError):
    """Another process of the run has ended, or cannot be reached."""


@dataclass(frozen=True)
class Member:
    """Properties of a process that the others are told."""

    rank: int
    host: str
    boot: str
    """Identity of the machine's boot; with the host's name, it identifies the machine."""
    node: str
    """Identity of the torchrun that started the process."""
    cores: frozenset[int]
    """CPU cores that it may use."""
    device: str
    """Identity of its CUDA device; empty if there is none."""
    versions: tuple[tuple[str, str], ...]


class Launched(Ranks):
    """One of the processes of a launch; made by all of them at the same time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """RunError if the others cannot be met."""
        try:
            self.rank, self.size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
            self.local_rank = int(environment.get("LOCAL_RANK", "0"))
            address, port = environment["MASTER_ADDR"], int(environment["MASTER_PORT"])
        except (KeyError, ValueError) as error:
            raise UsageError(f"WORLD_SIZE is set, but not as torchrun sets it ({describe(error)}); unset it") from None
        hosted = environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True)
        if interface := interface_towards(address):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
        self._turns = 0
        try:
            self._launch = _store(address, port, serve=not hosted and self.is_first)
            attempt = self._meet()
            self._store = PrefixStore(attempt, self._launch)
            self._failures = Failures(self.rank, self.size, PrefixStore(attempt, _store(address, port)))
            group = PrefixStore("group", self._store)
            dist.init_process_group(
                "gloo", store=group, rank=self.rank, world_size=self.size, timeout=timedelta(seconds=COLLECTIVE_S)
            )
        except RuntimeError as error:
            raise RunError(
                f"process {self.rank} of {self.size} cannot meet the others at {address}:{port} "
                f"({describe(error)[:200]}); see that the machines reach each other, and that GLOO_SOCKET_IFNAME, if "
                "set, names the network between them"
            ) from error
        self.members = self._gather(member(self.rank, self.local_rank, environment))
        self._failures.watch([m.node for m in self.members])
        devices = [m.device for m in self.members]
        own = dist.is_nccl_available() and all(devices) and len(set(devices)) == len(devices)
        self._nccl = dist.new_group(backend="nccl", timeout=timedelta(seconds=COLLECTIVE_S)) if own else None

    def require_alike(self) -> None:
        """Raise UsageError unless all processes have the same package versions as the first."""
        first = self.members[0]
        for other in self.members:
            for (name, theirs), (_, version) in zip(other.versions, first.versions, strict=True):
                if theirs != version:
                    raise UsageError(
                        f"process {other.rank} on {other.host} has {name} {theirs}, process 0 on {first.host} has "
                        f"{version}; install the same on every machine"
                    )

    def _meet(self) -> str:
        """Return the prefix of the keys of this attempt, drawn by the first process.

        torchrun's store outlives an attempt, and its counts of restarts differ between machines: a process that is
        there says so under a name of its own, which nothing that is left in the store can answer.
        """
        name, launch, deadline = uuid.uuid4().hex, PrefixStore("metarl", self._launch), time.monotonic() + MEET_S
        if not self.is_first:
            launch.set(f"hello/{self.rank}", name)
            launch.wait([f"welcome/{name}"], timedelta(seconds=MEET_S))
            attempt = launch.get(f"welcome/{name}").decode()
            launch.set(f"here/{attempt}/{self.rank}", "")
            return attempt
        away = set(range(1, self.size))
        while away:
            for rank in sorted(away):
                if launch.check([f"hello/{rank}"]):
                    launch.set(f"welcome/{launch.get(f'hello/{rank}').decode()}", name)
                if launch.check([f"here/{name}/{rank}"]):
                    away.discard(rank)
            if time.monotonic() > deadline:
                raise RuntimeError(f"of {self.size} processes {len(away)} are not there after {MEET_S:.0f} s")
            time.sleep(POLL_S)
        return name

    def _gather(self, own: Member) -> list[Member]:
        members: list[Member] = [own] * self.size
        with self._losing():
            dist.all_gather_object(members, own)
        return members

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        """Turn torch's error about a process that has ended into LostRank."""
        try:
            yield
        except RuntimeError as error:
            raise LostRank(
                f"another of the {self.size} processes of this run has ended without a word, or cannot be reached "
                f"({describe(error)[:200]})"
            ) from error

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        if self.size == 1:
            return tensor
        here = tensor.detach().contiguous()
        if here.is_cuda and self._nccl is None:
            here = here.cpu()
        with self._losing():
            dist.all_reduce(here, group=self._nccl if here.is_cuda else None)
        return here.to(tensor.device)

    def any(self, flag: bool) -> bool:
        return bool(self.sum(torch.tensor(int(flag))))

    def from_first(self, make: Callable[[], T]) -> T:
        if self.size == 1:
            return make()
        self._turns += 1
        key = f"first/{self._turns}"
        box = [None]
        if self.is_first:
            box = [make()]
            with self._losing():
                self._store.set(key, "")
        else:
            with self._losing():  # not in a sum: those give up after a while
                while not self._store.check([key]):
                    if self._failures.known:
                        raise LostRank("another process of this run has failed")
                    time.sleep(POLL_S)
        with self._losing():
            dist.broadcast_object_list(box, src=0)
        return box[0]  # pyright: ignore[reportReturnType]

    def share_of_cores(self, cores: int) -> int:
        mine = self.members[self.rank]
        beside = [m.cores for m in self.members if (m.host, m.boot) == (mine.host, mine.boot)]
        share = sum(1 / sum(core in theirs for theirs in beside) for core in mine.cores)
        return min(cores, max(1, int(share + 1e-6)))

    def cuda_device(self) -> torch.device:
        device = torch.device("cuda", self.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
        return device

    def remember(self, key: str, value: str) -> None:
        """Store a value for the processes that torchrun starts in place of these."""
        with self._losing():
            self._launch.set(f"metarl/kept/{key}", value)

    def recall(self, key: str) -> str | None:
        """Return the value that earlier processes stored; None if there is none, or torchrun kept no store."""
        with self._losing():
            key = f"metarl/kept/{key}"
            return self._launch.get(key).decode() if self._launch.check([key]) else None

    def failed(self, status: int, message: str) -> tuple[int, str]:
        """Report a failure of this process; returns its exit status and message, empty if another process prints it."""
        return self._failures.report(status, one_line(message, LONGEST))

    def leave(self, status: int) -> NoReturn:
        """End this process with an exit status.

        It does not end by itself: gloo's threads outlive their process group, and now and then abort the process while
        Python shuts down, so that a run that has succeeded would fail.
        """
        self._failures.close()
        if not status:
            dist.destroy_process_group()
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _store(address: str, port: int, serve: bool = False) -> TCPStore:
    return TCPStore(
        address, port, is_master=serve, timeout=timedelta(seconds=MEET_S), wait_for_workers=False, multi_tenant=True
    )


def join(environment: Mapping[str, str] = os.environ) -> Launched | None:
    """Return the processes that torchrun has started, of which this is one; None without torchrun."""
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    if environment["WORLD_SIZE"] == "1" and "TORCHELASTIC_RUN_ID" not in environment:
        return None
    return Launched(environment)


def member(rank: int, local_rank: int, environment: Mapping[str, str]) -> Member:
    """Return the properties of this process."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    device = ""
    if torch.cuda.is_available() and local_rank < torch.cuda.device_count():
        device = str(torch.cuda.get_device_properties(local_rank).uuid)
    return Member(
        rank=rank,
        host=platform.node(),
        boot=boot.read_text().strip() if boot.exists() else "",
        node=environment.get("GROUP_RANK", platform.node()),
        cores=frozenset(cores),
        device=device,
        versions=(("metarl", VERSION), *((name, metadata.version(name)) for name in VERSIONS)),
    )
