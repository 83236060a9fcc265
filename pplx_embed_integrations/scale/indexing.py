"""Whole documents into the quantised store's table: embedded and written by many, committed by one, again and again.

Knows what a job does from its start to its end and what a second run need not do; must not know how vectors are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..inputs import check_positive
from ..stores import ChunkTable, Held, Keep
from ..stores.adapter import table_for
from ..stores.handle import is_remote
from .columns import outcomes_of
from .committing import Committer, Indexed
from .embedding import embedded
from .faults import carried, carrying
from .reading import Reader
from .source import Source

if TYPE_CHECKING:
    from ray.data import Dataset


def index_dataset(
    dataset: Dataset,
    uri: str | Path,
    *,
    embeddings: Any,
    splitter: Any = None,
    text: str = "text",
    key: str = "id",
    metadata: Sequence[str] | None = None,
    name: str = "chunks",
    keep: Keep | None = None,
    storage_options: Mapping[str, str] | None = None,
    batch_size: int = 64,
    documents_per_file: int = 1000,
    commit_every: float = 30.0,
    concurrency: int | tuple[int, int] | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    **options: Any,
) -> Indexed:
    """Bring the table of a `QuantizedVectorStore` up to a dataset of whole documents; both frameworks open it.

    A document that the table holds as it is costs reading and splitting alone. Any other is embedded, and replaces what
    the table holds of it as a whole, in one version of the table. Workers write files; the process that calls this
    makes them part of the table, all that have come together in one version. If the job is killed, call it again: what
    is in the table is not done again.

    Args:
        dataset: Rows are whole documents; see `embed_dataset`, also for all arguments that are not listed here.
        uri: A folder that every machine of the cluster has, or `s3://…`, `gs://…`, `az://…`.
        embeddings: What embeds.
        splitter: Splits a document.
        text: The column of the texts.
        key: The column that names the documents. Of two rows of one key one stays.
        metadata: Columns that become metadata of each chunk; by default all others.
        name: The table's name.
        keep: `"both"`, `"int8"` or `"bits"`; by default what the table has, and in a new one what the embeddings give.
        storage_options: LanceDB's options of the object storage.
        batch_size: Documents that go to the model together.
        documents_per_file: Documents that are written together.
        commit_every: Seconds between two commits: what a kill of this process costs at most, besides what has not been
            written yet.
        concurrency: Actors that embed; leave two cores or more for those that read and write.
        num_cpus: Cores for each of them.
        num_gpus: GPUs for each of them.
        **options: What else `Dataset.map_batches` takes.

    Returns:
        What was done, and what was not, by key.

    Raises:
        InputError: The table was made with another model or form; a worker would compute other vectors; a column is
            missing.
        ServerError: A server that embeds is gone. What has been written by then is in the table.
        StoreError: The table cannot be written.
    """
    import ray

    source, reader = Source.of(embeddings), Reader(splitter, text, key, metadata)
    place = str(uri) if is_remote(str(uri)) else str(Path(str(uri).removeprefix("file://")).absolute())
    table = table_for(
        place,
        identity=source.identity,
        dimensions=source.dimensions,
        quantization=source.quantization,
        model=source.model,
        name=name,
        keep=keep,
        storage_options=storage_options,
    )
    table.check_writable()
    check_positive("documents_per_file", documents_per_file)
    opening = (place, name, json.dumps(source.made_by), source.dimensions, json.dumps(dict(storage_options or {})))
    try:
        held = ray.remote(_held).remote(*opening)
        documents = embedded(
            dataset,
            source,
            reader,
            batch_size=batch_size,
            flat=False,
            concurrency=concurrency,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            held=held,
            **options,
        )
        reports = documents.repartition(target_num_rows_per_block=documents_per_file, strict=True).map_batches(
            _stage, batch_size=None, batch_format="pyarrow", fn_kwargs={"opening": opening}
        )
        with Committer(table, every=commit_every) as committer:
            for row in reports.iter_rows():
                committer.take(json.loads(row["report"]))
    except ray.exceptions.RayError as error:
        raise carried(error) from error
    table.tidy()
    return committer.done


@lru_cache(maxsize=1)
def _open(place: str, name: str, made_by: str, dimensions: int, options: str) -> ChunkTable:
    found = ChunkTable(place, name=name, storage_options=json.loads(options))
    found.record.check(made_by=json.loads(made_by), dimensions=dimensions, table=repr(found))
    return ChunkTable(place, name=name, made_by=json.loads(made_by), storage_options=json.loads(options))


@carrying
def _held(*opening: Any) -> Held:
    return _open(*opening).held()


@carrying
def _stage(rows: Any, opening: tuple[Any, ...]) -> Any:
    """Write the documents of a block into files, and say so in one row."""
    import pyarrow as pa

    table = _open(*opening)
    outcomes = outcomes_of(rows, packed=not table.record.has_codes)
    done = [(one.document, one.vectors) for one in outcomes if one.document is not None and one.vectors is not None]
    staged = table.stage([document for document, _ in done], [vectors for _, vectors in done])
    report = {
        "files": staged.files,
        "documents": staged.documents,
        "chunks": staged.chunks,
        "write": staged.write,
        "skipped": sum(each.skipped for each in outcomes),
        "failed": [[each.key, each.error] for each in outcomes if each.error is not None],
    }
    return pa.table({"report": [json.dumps(report)]})
