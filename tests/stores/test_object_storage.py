"""A table on object storage: opened by two, written by both at once, compacted, and unreachable."""

from __future__ import annotations

import threading

import pytest

from pplx_embed_integrations import StoreError
from pplx_embed_integrations.stores import ChunkTable

from .conftest import DIMENSIONS, MADE_BY, codes_of, document
from .object_storage import object_storage


def test_a_table_on_object_storage() -> None:
    with object_storage() as (options, objects):

        def opened(**record: object) -> ChunkTable:
            return ChunkTable("s3://bucket/folder", storage_options=options, **record)  # type: ignore[arg-type]

        one, other = (opened(made_by=MADE_BY, dimensions=DIMENSIONS) for _ in range(2))
        one.replace([document(n) for n in range(30)], [codes_of(n, 3) for n in range(30)])
        assert [hit.id for hit in opened().search(codes_of(3, 3)[1], k=1)] == ["doc-3-1"]
        writers = [
            threading.Thread(
                target=table.replace,
                args=([document(n, version=v) for n in range(10)], [codes_of(n, 3) for n in range(10)]),
            )
            for v, table in ((1, one), (2, other))
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        reader = opened()
        versions = {hit.text.split()[3] for hit in reader.get(documents=[f"doc-{n}" for n in range(10)])}
        assert versions in ({"1"}, {"2"})
        assert reader.count() == 90
        one.compact()
        assert opened().stats().bytes_on_disk is None
        assert [hit.id for hit in opened().search(codes_of(3, 3)[1], k=1)] == ["doc-3-1"]
        assert all(key.startswith("folder/chunks.lance/") for key in objects.found)


def test_object_storage_that_cannot_be_reached() -> None:
    with object_storage() as (options, _):
        pass
    patience = {"client_max_retries": "0", "retry_timeout": "1s"}
    with pytest.raises(StoreError, match="chunks' in s3://bucket/folder failed: the object storage cannot be reached"):
        ChunkTable("s3://bucket/folder", storage_options={**options, **patience})
