"""One process makes part of the table what many have written: every so often, all that has come together.

Knows reports of the workers and what they add up to; must not know Ray.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..stores import ChunkTable, Staged

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.getLogger(__name__)

_NAMED = 10_000
"""Documents that a result names; more are counted."""


@dataclass
class Indexed:
    """What a job has done, in documents.

    Attributes:
        added: Documents that are new in the table.
        replaced: Documents of which it held another version.
        skipped: Documents that it held as they are.
        chunks: Chunks that were embedded and stored.
        repeated: Keys that more than one row of the dataset had; what came last stays.
        failed: For documents that are not in the table their key, or None where they have none, and why; 10,000 at
            most.
        failures: How many there are of them.
    """

    added: int = 0
    replaced: int = 0
    skipped: int = 0
    chunks: int = 0
    repeated: list[str] = field(default_factory=list)
    failed: list[tuple[str | None, str]] = field(default_factory=list)
    failures: int = 0


class Committer:
    """Commits in a thread of its own, while more arrives.

    Args:
        table: The table.
        every: Seconds between two commits.
    """

    def __init__(self, table: ChunkTable, *, every: float) -> None:
        self.done = Indexed()
        self._table, self._every = table, every
        self._waiting: queue.SimpleQueue[Staged | None] = queue.SimpleQueue()
        self._writes: set[int] = set()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pplx-embed-commits", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Commit what is left, whatever has ended the job."""
        self._waiting.put(None)
        self._thread.join()
        if self._failure is not None and kind is None:
            raise self._failure
        self._tell()

    def take(self, report: Mapping[str, Any]) -> None:
        """Take a worker's report; raise what went wrong with earlier ones."""
        if self._failure is not None:
            raise self._failure
        done = self.done
        done.skipped += report["skipped"]
        done.failures += len(report["failed"])
        done.failed += [(key, why) for key, why in report["failed"]][: _NAMED - len(done.failed)]
        if report["files"]:
            self._waiting.put(
                Staged(tuple(report["files"]), tuple(report["documents"]), report["chunks"], report["write"])
            )

    def _run(self) -> None:
        last, open_ = time.monotonic(), True
        while open_:
            arrived = [self._waiting.get()]
            while arrived[-1] is not None:
                try:
                    arrived.append(self._waiting.get(timeout=max(0.0, last + self._every - time.monotonic())))
                except queue.Empty:
                    break
            open_ = arrived[-1] is not None
            try:
                self._commit([each for each in arrived if each is not None])
            except BaseException as error:  # noqa: BLE001 - raised where the job is awaited
                self._failure = error
                return
            last = time.monotonic()

    def _commit(self, staged: list[Staged]) -> None:
        if not staged:
            return
        self._writes.update(each.write for each in staged)
        committed = self._table.commit(staged)
        repeated = {key: len(writes & self._writes) for key, writes in committed.replaced.items()}
        replaced = sum(bool(writes - self._writes) for writes in committed.replaced.values())
        documents = sum(len(each.documents) for each in staged)
        self.done.chunks += committed.added
        self.done.replaced += replaced
        self.done.added += documents - replaced - sum(repeated.values())
        again = sorted(key for key, times in repeated.items() if times)
        self.done.repeated += again[: _NAMED - len(self.done.repeated)]

    def _tell(self) -> None:
        if self.done.failures:
            logger.warning("%d documents were not indexed; Indexed.failed names them", self.done.failures)
        if self.done.repeated:
            logger.warning("%d documents came more than once; Indexed.repeated names them", len(self.done.repeated))
