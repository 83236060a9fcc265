"""Jobs on a cluster: documents, embedders that note what they embed and kill what they should, a driver to be killed.

Knows what both the tests and the processes of the cluster import; must not know pytest.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pplx_embed_integrations import Embedder, FakeEmbedder
from pplx_embed_integrations.stores import ChunkTable
from pplx_embed_integrations.vectors import Vectors

DIMENSION = 64
ENOUGH = 40
"""Documents after which the driver is killed: more than fill a file or two."""
FOOTER = "Subject to the terms of use. All rights reserved, everywhere and for ever."


def text_of(number: int, version: int = 0) -> str:
    """A document of 1 to 7 sentences."""
    rows = range(1 + number % 7)
    return ". ".join(f"Document {number} of version {version} says in part {row} what it says" for row in rows)


def rows(count: int, version: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"doc-{n}", "text": text_of(n, version), "n": n, "lang": "en" if n % 2 else None} for n in range(count)
    ]


def sentences(text: str) -> list[str]:
    return text.split(". ")


@dataclass(frozen=True)
class Noting(FakeEmbedder):
    """Notes the documents that it embeds in a file, and kills something once when it meets a certain one.

    Args:
        folder: Where it notes.
        kill: `"actor"`, its own process; `"node"`, the machine's raylet, unless it is the first node; `"driver"`, the
            process that started the job, when the table has a document.
        target: Id of the driver's process, or of the node to be spared.
        uri: The driver's table.
    """

    folder: str = ""
    kill: str = ""
    target: Any = None
    uri: str = ""

    def encode_documents(self, documents: Sequence[Sequence[str]], **form: Any) -> list[Vectors]:
        self._kill()
        found = super().encode_documents(documents, **form)
        with Path(self.folder, "embedded").open("a") as file:
            file.write("".join(f"{chunks[0].split()[1]}\n" for chunks in documents))
        return found

    def _kill(self) -> None:
        done = Path(self.folder, "killed")
        if not self.kill or done.exists():
            return
        if self.kill == "node":
            import ray

            if ray.get_runtime_context().get_node_id() == self.target:
                return
        if self.kill == "driver":
            if len(self.embedded()) < ENOUGH:
                return
            while not ChunkTable(self.uri).count():  # what it has committed shall stay
                time.sleep(0.05)
        done.touch()
        victim = {"actor": os.getpid(), "node": os.getppid(), "driver": self.target}[self.kill]
        os.kill(victim, signal.SIGKILL)

    def embedded(self) -> list[str]:
        """The documents that were embedded, in the order of their end."""
        file = Path(self.folder, "embedded")
        return [f"doc-{number}" for number in file.read_text().split()] if file.exists() else []


def index(embedder: Embedder, uri: str, documents: list[dict[str, Any]], **options: Any) -> Any:
    import ray

    from pplx_embed_integrations.scale import index_dataset

    ray.data.DataContext.get_current().enable_progress_bars = False
    chosen = {"batch_size": 8, "documents_per_file": 16, "commit_every": 0.0, "concurrency": 2, **options}
    return index_dataset(ray.data.from_items(documents), uri, embeddings=embedder, splitter=sentences, **chosen)


if __name__ == "__main__":
    import ray

    address, folder, uri, count = sys.argv[1:]
    ray.init(address, log_to_driver=False)
    index(Noting(DIMENSION, folder=folder, kill="driver", target=os.getpid(), uri=uri), uri, rows(int(count)))
