"""Sticky Ray actors: each holds a fixed set of clients, their data and their Contexts.

A wave of messages costs one call an actor. Pickle writes an object that appears several times
in one call only once, so content shared by many messages travels once per actor and wave.
A client's state lives in its actor; where a client changes it, a copy comes back with the
reply, so that an actor that dies can be replaced and its clients' work redone as if nothing
had happened.
"""

import logging
import os
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from flwr.app import Message

from fedmia.grid.base import ClientAppFactory, Clients, LocalGrid, Reply, refuse

log = logging.getLogger(__name__)

_MAX_ATTEMPTS = 2
_PROGRESS_GRACE_S = 5.0
_POLL_S = 0.25


@dataclass
class _Job:
    """One message of a wave and what is needed to run it again elsewhere."""

    index: int
    message: Message
    partition: int
    state: bytes | None = None


@dataclass
class _Chunk:
    """Jobs that one actor runs in one call."""

    jobs: list[_Job]
    attempts: int = 0


class _Worker:
    """The actor's side: some clients in a process of their own."""

    def __init__(
        self, client_app: list[Any], num_clients: int, threads: int, path: list[str]
    ) -> None:
        import ray

        # The app is unpickled (its arrays mapped, not copied) only once its modules can be found.
        sys.path[:] = path + [p for p in sys.path if p not in path]
        self._threads = threads
        self._clients = Clients(ray.get(client_app[0]), num_clients)
        self._current: tuple[int, float] | None = None

    def work(self, jobs: list[_Job]) -> list[Reply]:
        torch.set_num_threads(self._threads)
        replies = []
        for position, job in enumerate(jobs):
            self._current = (position, time.monotonic())
            replies.append(self._clients.answer(job.message, job.partition, job.state))
        self._current = None
        return replies

    def progress(self) -> tuple[int, float] | None:
        """Return which job is running and for how many seconds."""
        if self._current is None:
            return None
        position, since = self._current
        return position, time.monotonic() - since

    def pid(self) -> int:
        return os.getpid()


@dataclass
class _Seat:
    """The driver's side of one actor: the present incarnation and its work of this wave."""

    actor: Any
    todo: deque[_Chunk] = field(default_factory=deque)
    chunk: _Chunk | None = None
    since: float = 0.0


class ActorGrid(LocalGrid):
    """A grid whose clients live in actors.

    Parameters
    ----------
    num_cpus, num_gpus
        Reserved for each actor.
    timeout_s
        How long a client may take to answer; ``None`` waits for ever.
    client_app
        What the clients run.
    num_clients
        How many there are.
    seed
        Of the node ids.
    num_actors
        How many actors share them.
    """

    def __init__(
        self,
        num_cpus: float,
        num_gpus: float,
        timeout_s: float | None,
        client_app: ClientAppFactory,
        num_clients: int,
        seed: int,
        num_actors: int,
    ) -> None:
        import ray

        super().__init__(num_clients, seed)
        self._num_cpus, self._num_gpus, self._timeout_s = num_cpus, num_gpus, timeout_s
        self._num_clients = num_clients
        self._app = ray.put(client_app)
        self._states: dict[int, bytes] = {}
        self._forgotten: set[int] = set()
        self._seats = [_Seat(self._spawn()) for _ in range(num_actors)]
        self.pids()  # an app that cannot be built says so here, with its own traceback

    def pids(self) -> list[int]:
        """Return the process id of each actor."""
        import ray

        return list(ray.get([seat.actor.pid.remote() for seat in self._seats]))

    def close(self) -> None:
        """Stop the actors."""
        import ray

        if ray.is_initialized():
            for seat in self._seats:
                ray.kill(seat.actor)

    def _spawn(self) -> Any:
        import ray

        options = {"num_cpus": self._num_cpus, "num_gpus": self._num_gpus}
        threads = max(1, int(self._num_cpus))
        # Two threads an actor: one works, the other says what it is working on.
        worker: Any = ray.remote(_Worker)
        return worker.options(max_concurrency=2, **options).remote(
            [self._app], self._num_clients, threads, sys.path
        )

    def execute(self, wave: Sequence[Message], timeout: float | None) -> list[Message]:
        """Answer a wave of messages, in their order."""
        import ray

        deadline = None if timeout is None else time.monotonic() + timeout
        replies: list[Message | None] = [None] * len(wave)
        for seat_index, seat in enumerate(self._seats):
            jobs = [
                _Job(i, m, p, self._recall(p))
                for i, m in enumerate(wave)
                if (p := self.partition_of(m)) % len(self._seats) == seat_index
            ]
            if jobs:
                seat.todo.append(_Chunk(jobs))
        running: dict[Any, _Seat] = {}
        for seat in self._seats:
            self._start(seat, running)
        while running:
            done, _ = ray.wait(list(running), timeout=self._patience(running, deadline))
            for ref in done:
                seat = running.pop(ref)
                self._collect(ref, seat, replies)
                self._start(seat, running)
            for ref, seat in list(running.items()):
                if self._overdue(seat, deadline) and self._interrupt(seat, deadline, replies):
                    del running[ref]
                    self._start(seat, running)
        return [reply for reply in replies if reply is not None]

    def _start(self, seat: _Seat, running: dict[Any, _Seat]) -> None:
        if seat.todo:
            seat.chunk = seat.todo.popleft()
            seat.since = time.monotonic()
            running[seat.actor.work.remote(seat.chunk.jobs)] = seat

    def _collect(self, ref: Any, seat: _Seat, replies: list[Message | None]) -> None:
        import ray
        from ray.exceptions import RayActorError

        assert seat.chunk is not None
        chunk, seat.chunk = seat.chunk, None
        try:
            results: list[Reply] = ray.get(ref)
        except RayActorError as error:
            log.warning("A client process died (%s); replacing it", type(error).__name__)
            self._replace(seat)
            self._redo(seat, chunk, replies)
            return
        for job, result in zip(chunk.jobs, results, strict=True):
            replies[job.index] = result.message
            if result.state is not None:
                self._states[job.partition] = result.state

    def _redo(self, seat: _Seat, chunk: _Chunk, replies: list[Message | None]) -> None:
        """Queue the work of an actor that died; alone, where it keeps dying."""
        attempts = chunk.attempts + 1
        if attempts < _MAX_ATTEMPTS:
            self._queue_again(seat, [chunk.jobs], attempts)
        elif len(chunk.jobs) > 1:
            self._queue_again(seat, [[job] for job in chunk.jobs], 1)
        else:
            (job,) = chunk.jobs
            reason = (
                f"client {job.partition}: its process died {_MAX_ATTEMPTS} times on this message"
            )
            replies[job.index] = refuse(job.message, reason)

    def _queue_again(self, seat: _Seat, batches: list[list[_Job]], attempts: int) -> None:
        for jobs in reversed(batches):
            for job in jobs:
                job.state = self._recall(job.partition)
            seat.todo.appendleft(_Chunk(jobs, attempts))

    def _patience(self, running: dict[Any, _Seat], deadline: float | None) -> float | None:
        limits = [] if deadline is None else [deadline]
        if self._timeout_s is not None:
            limits += [seat.since + self._timeout_s for seat in running.values()]
        return max(min(limits) - time.monotonic(), _POLL_S) if limits else None

    def _overdue(self, seat: _Seat, deadline: float | None) -> bool:
        now = time.monotonic()
        limit = self._timeout_s
        return (limit is not None and now - seat.since > limit) or (
            deadline is not None and now > deadline
        )

    def _interrupt(
        self, seat: _Seat, deadline: float | None, replies: list[Message | None]
    ) -> bool:
        """Stop an actor that is over its time and queue the rest; False if it is merely busy."""
        assert seat.chunk is not None
        jobs, attempts = seat.chunk.jobs, seat.chunk.attempts
        if deadline is not None and time.monotonic() > deadline:
            late = [job for chunk in (seat.chunk, *seat.todo) for job in chunk.jobs]
            seat.todo.clear()
            reason, again = "no answer within the time of the round", []
        else:
            culprit = self._hanging(seat)
            if culprit is None:
                return False
            late = [jobs[i] for i in culprit]
            again = [[job for job in jobs if job not in late]] if late else [[j] for j in jobs]
            reason = f"exceeded pool.timeout_s={self._timeout_s}"
        for job in late:
            replies[job.index] = refuse(job.message, f"client {job.partition}: {reason}")
        self._replace(seat)
        self._queue_again(seat, [batch for batch in again if batch], attempts)
        seat.chunk = None
        return True

    def _hanging(self, seat: _Seat) -> list[int] | None:
        """Return the position of the job that is over its time; None if there is none.

        An actor that cannot even say what it does gives an empty list where several jobs could
        be to blame: each is then to be run alone.
        """
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError

        assert seat.chunk is not None
        assert self._timeout_s is not None
        try:
            progress = ray.get(seat.actor.progress.remote(), timeout=_PROGRESS_GRACE_S)
        except RayActorError:
            return None
        except GetTimeoutError:
            return [0] if len(seat.chunk.jobs) == 1 else []
        if progress is None or progress[1] <= self._timeout_s:
            return None
        return [progress[0]]

    def _replace(self, seat: _Seat) -> None:
        """Give the seat a new actor; its clients' states travel with their next messages."""
        import ray

        ray.kill(seat.actor)
        seat.actor = self._spawn()
        position = self._seats.index(seat)
        self._forgotten.update(p for p in self._states if p % len(self._seats) == position)

    def _recall(self, partition: int) -> bytes | None:
        """Return a client's state if its actor has lost it."""
        if partition in self._forgotten:
            self._forgotten.discard(partition)
            return self._states.get(partition)
        return None
