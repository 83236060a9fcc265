"""Whole documents to chunks with vectors: one stage of actors, each of which splits and embeds.

Knows Ray Data's stages and the columns that come out; must not know how a document is split, nor tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import InputError, InputTypeError
from ..inputs import check_positive
from ..stores import Held
from .columns import Outcome, chunk_rows, document_rows
from .faults import carrying
from .reading import JobError, Reader
from .source import Source
from .splitting import check_splitter

if TYPE_CHECKING:
    import pyarrow as pa
    from ray.data import Dataset


def embed_dataset(
    dataset: Dataset,
    *,
    embeddings: Any,
    splitter: Any = None,
    text: str = "text",
    key: str = "id",
    metadata: Sequence[str] | None = None,
    batch_size: int = 64,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **options: Any,
) -> Dataset:
    """Split and embed a dataset of whole documents: a dataset with a row for each chunk.

    A document is a row, so nothing can cut it apart, and its chunks are embedded in its context. The columns are those
    of the quantised store: `id`, `document`, `position`, `hash`, `text`, `metadata` (JSON), `codes` (`[d]` int8, where
    the embeddings give them), `bits` (`[ceil(d / 8)]` uint8), and `error`. A document that cannot be embedded has one
    row, with its key and the reason in `error`, and nothing else; it stops nothing.

    Nothing runs before the result is written or read, as always with Ray Data. An actor that dies is replaced, and its
    block is done again.

    Args:
        dataset: Rows are whole documents.
        embeddings: `PplxEmbeddings`, `PplxEmbedding(metadata_mode="none")`, `PplxBiEncoder`, or any embedder, such as
            `PplxEncoder` and `RemoteEncoder`. Every worker loads it by its options.
        splitter: Splits a document: a LangChain splitter, or a function from a text to its chunks. None where `text` is
            a column of lists, each a document's chunks in reading order.
        text: The column of the texts.
        key: The column that names the documents; two rows must not share one.
        metadata: Columns that become metadata of each chunk; by default all others. None is left out.
        batch_size: Documents that go to the model together, and are done again together; the model packs their chunks
            to its own `batch_tokens`.
        concurrency: Actors: so many, or a tuple of at least and at most; by default as many as there is room for.
        num_cpus: Cores for each actor, which computes with so many threads; by default 1.
        num_gpus: GPUs for each actor.
        **options: What else `Dataset.map_batches` takes: `memory`, `resources`, `accelerator_type`, `runtime_env`, …

    Returns:
        A dataset, for `write_parquet`, or for whatever writes into a server's store.

    Raises:
        InputError: The embeddings give floats, or `batch_size` is not positive. What a worker finds, such as a missing
            column, comes as Ray's own error when the dataset is read.
        InputTypeError: The splitter cannot split, or the embeddings are none.
        NotContextualError: The embeddings were not trained for chunks in context.
    """
    source, reader = Source.of(embeddings), Reader(splitter, text, key, metadata)
    resources = {"concurrency": concurrency, "num_cpus": num_cpus, "num_gpus": num_gpus, **options}
    return embedded(dataset, source, reader, batch_size=batch_size, flat=True, **resources)


def embedded(
    dataset: Dataset,
    source: Source,
    reader: Reader,
    *,
    batch_size: int,
    flat: bool,
    concurrency: int | tuple[int, int] | None,
    held: Any = None,
    **options: Any,
) -> Dataset:
    """Add the stage to a dataset.

    Args:
        dataset: Rows are whole documents.
        source: What embeds.
        reader: What splits.
        batch_size: Documents that go to the model together.
        flat: Whether rows that come out are chunks, or documents.
        concurrency: Actors.
        held: A reference to what a table `Held` has; those documents are skipped.
        **options: Of `map_batches`.
    """
    from ray.data import ActorPoolStrategy

    check_positive("batch_size", batch_size)
    check_splitter(reader.splitter)
    if isinstance(concurrency, tuple):
        pool = ActorPoolStrategy(min_size=concurrency[0], max_size=concurrency[1])
    else:
        pool = ActorPoolStrategy(size=concurrency) if concurrency is not None else ActorPoolStrategy()
    given = {name: value for name, value in options.items() if value is not None}
    # Blocks as the reader made them may hold thousands of documents, and what is lost with an actor is a block.
    return dataset.repartition(target_num_rows_per_block=batch_size, strict=True).map_batches(
        _SplitAndEmbed,
        batch_size=None,
        batch_format="pyarrow",
        compute=pool,
        fn_constructor_kwargs={"source": source, "reader": reader, "held": held, "flat": flat},
        **given,
    )


class _SplitAndEmbed:
    """The actor: loads the model once, then takes batches of documents."""

    def __init__(self, source: Source, reader: Reader, held: Any, flat: bool) -> None:
        import ray

        self._source, self._reader, self._flat, self._checked = source, reader, flat, False
        self._held: Held | None = None if held is None else ray.get(held)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self._flat:
            return chunk_rows(self._outcomes(batch), source=self._source)
        return document_rows(carrying(self._outcomes)(batch))

    def _outcomes(self, batch: pa.Table) -> list[Outcome]:
        if not self._checked:
            self._source.check_same()
            self._reader.check_columns(batch.column_names)
            self._checked = True
        outcomes = [self._read(row) for row in batch.to_pylist()]
        waiting = [(at, outcome.document) for at, outcome in enumerate(outcomes) if outcome.document is not None]
        found = self._source.encode([document for _, document in waiting]) if waiting else []
        for (at, document), vectors in zip(waiting, found, strict=True):
            if isinstance(vectors, str):
                outcomes[at] = Outcome(document.key, error=vectors)
            else:
                outcomes[at] = Outcome(document.key, document, vectors)
        return outcomes

    def _read(self, row: Mapping[str, Any]) -> Outcome:
        key = None
        try:
            key = self._reader.name(row)
            document = self._reader.read(row)
        except JobError:
            raise
        except (InputError, InputTypeError) as error:
            return Outcome(key, error=str(error))
        if self._held is not None and self._held.has(document):
            return Outcome(key, skipped=True)
        return Outcome(key, document)
