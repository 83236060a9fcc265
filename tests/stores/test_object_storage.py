"""A table on object storage: opened by two, written by both at once, compacted, and unreachable."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pplx_embed_integrations import StoreError
from pplx_embed_integrations.stores import ChunkTable

from .object_storage import object_storage
from .rows import DIMENSIONS, MADE_BY, codes_of, document


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


READER = """
import sys
sys.path[:0] = [{tests!r}]
from rows import codes_of
from pplx_embed_integrations.stores import ChunkTable

table = ChunkTable("s3://bucket/folder", storage_options={options!r})
found = [table.search(codes_of(number, 3)[1], k=1)[0] for number in (0, 10, 20)]
print([(hit.id, hit.text.split()[3]) for hit in found])
"""


@pytest.mark.slow
def test_staged_on_object_storage_and_read_by_another_process() -> None:
    with object_storage() as (options, _):
        table = ChunkTable("s3://bucket/folder", made_by=MADE_BY, dimensions=DIMENSIONS, storage_options=options)
        table.replace([document(n) for n in range(20)], [codes_of(n, 3) for n in range(20)])
        parts = [
            [[document(n, version=1) for n in numbers], [codes_of(n, 3) for n in numbers]]
            for numbers in (range(10, 20), range(20, 30))
        ]
        staged = [pickle.loads(pickle.dumps(table.stage(*part))) for part in parts]
        version = table.lance.version
        done = table.commit(staged)
        assert (done.added, len(done.replaced), done.version) == (60, 10, version + 1)
        assert table.held().has(document(15, version=1))
        code = READER.format(tests=str(Path(__file__).parent), options=options)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as reader:
            found = [table.search(codes_of(number, 3)[1], k=1)[0] for number in (0, 10, 20)]
            assert [(hit.id, hit.text.split()[3]) for hit in found] == [
                ("doc-0-1", "0"), ("doc-10-1", "1"), ("doc-20-1", "1")
            ]  # fmt: skip
            assert reader.communicate()[0] == "[('doc-0-1', '0'), ('doc-10-1', '1'), ('doc-20-1', '1')]\n"


def test_object_storage_that_cannot_be_reached() -> None:
    with object_storage() as (options, _):
        pass
    patience = {"client_max_retries": "0", "retry_timeout": "1s"}
    with pytest.raises(StoreError, match="chunks' in s3://bucket/folder failed: the object storage cannot be reached"):
        ChunkTable("s3://bucket/folder", storage_options={**options, **patience})
