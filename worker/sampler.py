"""The warm sampling process of this process of the pool: kept from job to job.

It is made at the first job, since none survives a fork, made anew when it has ended, and dies with
us. What it does for a job is what `python -m models sample` would do.
"""

import os
import select
import subprocess
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import structlog

from app.parts import Parts
from app.storage import Storage
from app.tracing import Key
from models.run_folder import Result, SampleSpec
from worker import scratch
from worker.child import Events, OnEvent, Stopper, end, result_of, start
from worker.memory import oom_kill_count
from worker.run import Run, Stop

log = structlog.get_logger()
_POLL_S = 0.05


class Sampler:
    """A long-lived child that draws, and the weights that it was given lately."""

    def __init__(self, parts: Parts) -> None:
        """Start nothing yet."""
        settings = parts.settings
        self._storage: Storage = parts.storage
        self._limits = (
            *("--memory-bytes", str(settings.sampler_memory_bytes)),
            *("--idle-s", str(settings.sampler_idle_s)),
        )
        self._process: subprocess.Popen[bytes] | None = None
        self._killed_before: int | None = None
        folder = scratch.own_folder(settings.scratch)
        self._weights = _Files(folder, "weights", settings.sampler_memory_bytes)
        self._packs = _Files(folder, "packed", settings.sampler_memory_bytes)

    def draw(
        self,
        run: Run,
        prefix: str,
        spec: SampleSpec,
        on_event: OnEvent,
        packed_key: str | None = None,
    ) -> Result:
        """Draw with the weights below a key prefix in the run's folder, as `run_child` would.

        A filter in `spec` needs the `packed_key` of what the weights were trained on.

        Raises:
            StoppedError, JobFailedError, AttemptLostError, LeaseLostError: as `run_child`.
        """
        with run.phase("download"):
            weights = self._weights.get(self._storage, f"{prefix}{spec.weights}")
            os.link(weights, run.folder / spec.weights)
            if spec.is_filtered and packed_key is not None:
                os.link(self._packs.get(self._storage, packed_key), run.folder / spec.packed)
        (run.folder / "spec.json").write_text(spec.model_dump_json(), encoding="utf-8")
        events = Events(run, on_event, takes_progress=True)
        with run.phase("process") as span:
            process = self._ask(run.folder)
            status = self._wait(run, process, events)
            if run.stop is Stop.LEASE_LOST:
                self.close()
            span.note(Key.EXIT_CODE, status)
            events.finish()
        return result_of(run, status, self._killed_before)

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            end(self._process)
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None, "both were asked for"
                with suppress(BrokenPipeError):
                    pipe.close()
            self._process = None

    def _ask(self, folder: Path) -> subprocess.Popen[bytes]:
        """Name a run folder to the child; to a new one if it has ended, being idle or killed."""
        line = f"{folder}\n".encode()
        if self._process is not None and self._process.poll() is None:
            try:
                return self._write(self._process, line)
            except BrokenPipeError:
                pass  # it has just ended
        self.close()
        self._killed_before = oom_kill_count()
        self._process = start(
            ["sampler", *self._limits], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        log.info("sampler_started", pid=self._process.pid)
        return self._write(self._process, line)

    @staticmethod
    def _write(process: subprocess.Popen[bytes], line: bytes) -> subprocess.Popen[bytes]:
        assert process.stdin is not None, "it was asked for"
        process.stdin.write(line)
        process.stdin.flush()
        return process

    def _wait(self, run: Run, process: subprocess.Popen[bytes], events: Events) -> int:
        """Follow a request to its end; return its exit status, or that of a child that died."""
        assert process.stdout is not None, "it was asked for"
        stopper = Stopper(run, process)
        while True:
            readable, _, _ = select.select([process.stdout], [], [], _POLL_S)
            if readable:
                answer = process.stdout.readline()
                if answer:
                    return int(answer)
                status = process.wait()
                self.close()
                return status
            events.follow()
            stopper.look()


class _Files:
    """Objects on the disk of the worker, the ones that were used lately, and always the last."""

    def __init__(self, folder: Path, name: str, most_bytes: int) -> None:
        self._folder, self._name = folder, name
        self._most_bytes = most_bytes
        self._kept: OrderedDict[str, Path] = OrderedDict()
        self._count = 0

    def get(self, storage: Storage, key: str) -> Path:
        """Return the file of an object that never changes, fetched unless it is there."""
        if key not in self._kept:
            self._count += 1
            path = self._folder / f"{self._name}-{self._count}"
            storage.get_file(key, path)
            self._kept[key] = path
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and self._size_bytes() > self._most_bytes:
            self._kept.popitem(last=False)[1].unlink()
        return self._kept[key]

    def _size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self._kept.values())
