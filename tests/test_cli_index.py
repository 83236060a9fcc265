"""`pplx-embed index` and `search`: what is stored, what a second run does, and what an interruption costs."""

import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.cli import job, main

Run = Callable[..., int]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    for number in range(6):
        paragraphs = [f"Note {number} says thing {part} about the tide." for part in range(4)]
        (folder / f"note-{number}.md").write_text(f"# Note {number}\n\n" + "\n\n".join(paragraphs), encoding="utf-8")
    (folder / "deep" / "plain.txt").write_text("Ebb and flow follow the moon.\r\nTwice a day.", encoding="utf-8-sig")
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def index(store: Path, replica_v1: Path, replica_context_v1: Path) -> Run:
    def run(folder: Path, *options: str) -> int:
        models = [] if "--model" in options else ["--query-model", replica_v1, "--document-model", replica_context_v1]
        return main(["index", str(folder), "--store", str(store), "--chunk-tokens", "24", *map(str, models), *options])

    return run


@pytest.fixture
def encodes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many documents each pass through a contextual encoder held."""
    counts: list[int] = []
    encode = PplxEncoder.encode_documents

    def counted(self: PplxEncoder, documents: list[list[str]], **options: Any) -> Any:
        counts.append(len(documents))
        return encode(self, documents, **options)

    monkeypatch.setattr(PplxEncoder, "encode_documents", counted)
    return counts


def stored(store: Path, collection: str = "documents") -> dict[str, list[Any]]:
    """Every chunk in the store by source, in reading order, read with Qdrant's own client."""
    client = QdrantClient(path=str(store))
    points, _ = client.scroll(collection, limit=10_000, with_vectors=True)
    client.close()
    sources: dict[str, list[Any]] = {}
    for point in sorted(points, key=lambda point: point.payload["metadata"]["start_index"]):
        sources.setdefault(point.payload["metadata"]["source"], []).append(point)
    return sources


def test_every_vector_knows_its_document(
    folder: Path, store: Path, index: Run, encoder_context_v1: PplxEncoder
) -> None:
    assert index(folder) == 0
    sources = stored(store)
    assert sorted(sources) == ["deep/plain.txt", *(f"note-{number}.md" for number in range(6))]
    for points in sources.values():
        chunks = [point.payload["page_content"] for point in points]
        [expected] = encoder_context_v1.encode_documents([chunks], normalize=True)
        vectors = np.array([point.vector for point in points])
        np.testing.assert_allclose(vectors, expected, atol=1e-2)
        if len(chunks) > 1:
            assert np.abs(vectors - encoder_context_v1.encode(chunks, normalize=True)).max() > 0.05


def test_chunks_tile_the_text_and_name_their_line(folder: Path, store: Path, index: Run) -> None:
    index(folder)
    for source, points in stored(store).items():
        text = (folder / source).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        end = 0
        for point in points:
            start, chunk = point.payload["metadata"]["start_index"], point.payload["page_content"]
            assert text[start : start + len(chunk)] == chunk
            assert text[end:start].strip() == ""
            assert point.payload["metadata"]["line"] == text[:start].count("\n") + 1
            end = start + len(chunk)
        assert text[end:].strip() == ""


def test_an_unchanged_second_run_embeds_nothing(
    folder: Path, index: Run, encodes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    assert sum(encodes) == 7
    encodes.clear()
    capsys.readouterr()
    assert index(folder) == 0
    assert encodes == []
    assert "0 files indexed, 7 unchanged" in capsys.readouterr().out


def test_only_what_changed_is_embedded_again(
    folder: Path, store: Path, index: Run, encodes: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    before = stored(store)
    (folder / "note-1.md").write_text("# Note 1\n\nNow it is about rivers.", encoding="utf-8")
    (folder / "new.txt").write_text("Lakes have tides too, but small ones.", encoding="utf-8")
    (folder / "note-2.md").unlink()
    encodes.clear()
    assert index(folder) == 0
    assert sum(encodes) == 2
    assert "2 files indexed, 5 unchanged, 1 removed" in capsys.readouterr().out
    after = stored(store)
    assert "note-2.md" not in after
    assert [point.payload["page_content"] for point in after["note-1.md"]] == ["# Note 1\n\nNow it is about rivers."]
    assert after["note-3.md"] == before["note-3.md"]


def test_one_ctrl_c_ends_at_once_and_the_next_run_goes_on(
    folder: Path,
    store: Path,
    index: Run,
    encodes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(job, "_TOGETHER", 4)
    add = job.Job._add
    batches: list[int] = []

    def add_and_press(self: Any, batch: Any) -> None:
        batches.append(batch.files)
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        add(self, batch)

    monkeypatch.setattr(job.Job, "_add", add_and_press)
    assert index(folder) == 130
    done = sum(batches[:2])
    assert 0 < done < 7
    assert f"Stopped before {7 - done} files were indexed" in capsys.readouterr().out
    assert {len(points) == points[0].payload["metadata"]["chunks"] for points in stored(store).values()} == {True}

    monkeypatch.setattr(job.Job, "_add", add)
    encodes.clear()
    assert index(folder) == 0
    assert sum(encodes) == 7 - done
    assert len(stored(store)) == 7


def test_a_long_file_is_stored_a_window_at_a_time_with_the_vectors_of_the_whole(
    tmp_path: Path,
    store: Path,
    index: Run,
    encodes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    replica_context_v1: Path,
) -> None:
    monkeypatch.setattr(PplxEncoder, "max_tokens", property(lambda self: 96, lambda self, value: None), raising=False)
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "log.txt").write_text(
        "".join(f"12:{n:02} worker {n} finished job {n * 7} of the survey\n" for n in range(50))
    )
    add = job.Job._add

    def add_and_press(self: Any, batch: Any) -> None:
        if len(encodes) == 2:
            raise KeyboardInterrupt
        add(self, batch)

    monkeypatch.setattr(job.Job, "_add", add_and_press)
    assert index(folder) == 130
    [half] = stored(store).values()
    assert 0 < len(half) < half[0].payload["metadata"]["chunks"]

    monkeypatch.setattr(job.Job, "_add", add)
    assert index(folder) == 0
    [whole] = stored(store).values()
    assert len(whole) == whole[0].payload["metadata"]["chunks"]
    first = {point.id: point.vector for point in half}
    assert {point.id: point.vector for point in whole if point.id in first} == first
    windows = len(encodes)
    encodes.clear()
    chunks = [point.payload["page_content"] for point in whole]
    [expected] = PplxEncoder(replica_context_v1).encode_documents([chunks], normalize=True)
    np.testing.assert_allclose([point.vector for point in whole], expected, atol=1e-2)
    assert windows > 3


def test_a_file_that_was_cut_off_half_way_is_done_again(
    tmp_path: Path,
    store: Path,
    index: Run,
    encodes: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "a.txt").write_text("\n\n".join(f"Paragraph {n} of the long text goes on." for n in range(100)))
    upsert = QdrantClient.upsert
    calls: list[int] = []

    def die_at_the_second(self: QdrantClient, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return upsert(self, *args, **options)

    monkeypatch.setattr(QdrantClient, "upsert", die_at_the_second)
    assert index(folder, "--chunk-tokens", "12") == 130
    [half] = stored(store).values()
    assert len(half) == 64 < half[0].payload["metadata"]["chunks"]

    monkeypatch.setattr(QdrantClient, "upsert", upsert)
    encodes.clear()
    assert index(folder, "--chunk-tokens", "12") == 0
    assert encodes == [1]
    [whole] = stored(store).values()
    starts = [point.payload["metadata"]["start_index"] for point in whole]
    assert len(set(starts)) == len(whole) == whole[0].payload["metadata"]["chunks"]


def test_two_folders_in_one_collection_leave_each_other_alone(
    folder: Path, tmp_path: Path, store: Path, index: Run
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "own.txt").write_text("Something else entirely.")
    index(folder)
    index(other)
    assert len(stored(store)) == 8


def test_search_answers_with_place_and_text(
    folder: Path, store: Path, index: Run, capsys: pytest.CaptureFixture[str], biencoder: Any
) -> None:
    index(folder)
    points = [point for points in stored(store).values() for point in points]
    query = "Ebb and flow follow the moon."
    best = max(points, key=lambda point: float(np.dot(point.vector, biencoder.embed_query(query))))
    capsys.readouterr()
    assert main(["search", query, "--store", str(store), "--limit", "3"]) == 0
    output = capsys.readouterr().out
    metadata = best.payload["metadata"]
    assert output.startswith(f"1. {folder}/{metadata['source']}:{metadata['line']}  (")
    assert "\n3. " in output
    assert "\n4. " not in output


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--quantization", "binary"], "quantization int8, not binary"),
        (["--dimensions", "16"], "dimensions 32, not 16"),
        (["--chunk-tokens", "25"], "chunk tokens 24, not 25"),
    ],
)
def test_other_options_are_refused(
    folder: Path, index: Run, options: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    assert index(folder, *options) == 2
    error = capsys.readouterr().err
    assert told in error
    assert "--collection" in error


def test_another_model_is_refused(
    folder: Path, index: Run, replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    assert index(folder, "--model", str(replica_context_v1)) == 2
    assert f"replica-v1, not {replica_context_v1}" in capsys.readouterr().err


def test_options_are_remembered(folder: Path, store: Path, index: Run, encodes: list[int]) -> None:
    index(folder, "--quantization", "binary", "--dimensions", "16")
    assert {len(point.vector) for points in stored(store).values() for point in points} == {16}
    encodes.clear()
    assert main(["index", str(folder), "--store", str(store)]) == 0
    assert encodes == []


def test_a_checkpoint_whose_files_changed_is_refused(
    folder: Path, tmp_path: Path, store: Path, replica_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "my-model"
    copy.mkdir()
    for file in replica_v1.glob("*.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    assert main(["index", str(folder), "--store", str(store), "--model", str(copy)]) == 0
    weights = bytearray((copy / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "model.safetensors").write_bytes(weights)
    for command in (["search", "tide"], ["index", str(folder)]):
        assert main([*command, "--store", str(store)]) == 2
        assert "have changed since the collection was made" in capsys.readouterr().err


def test_a_model_for_single_texts_indexes_each_chunk_alone(
    folder: Path, store: Path, index: Run, replica_v1: Path, encoder_v1: PplxEncoder
) -> None:
    assert index(folder, "--model", str(replica_v1)) == 0
    points = [point for points in stored(store).values() for point in points]
    expected = encoder_v1.encode([point.payload["page_content"] for point in points], normalize=True)
    np.testing.assert_allclose([point.vector for point in points], expected, atol=1e-2)


def test_nothing_is_left_out_in_silence(folder: Path, index: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "binary.txt").write_bytes(b"a\0b")
    (folder / "blank.md").write_text(" \n")
    (folder / ".git").mkdir()
    assert index(folder) == 0
    output = capsys.readouterr().out
    assert "Left out 5:" in output
    for told in (
        "hidden: .git",
        "neither text nor Markdown by its name, nor among --include: picture.png",
        "not UTF-8 text (byte 3); convert it first: latin.txt",
        "binary: it holds NUL characters: binary.txt",
        "empty: blank.md",
    ):
        assert told in output


def test_a_store_inside_the_folder_is_not_indexed(
    folder: Path, replica_context_v1: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["index", str(folder), "--store", str(folder / "store"), "--model", str(replica_context_v1)]
    assert main(command) == 0
    assert main(command) == 0
    assert "Left out" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["index", "{tmp}/nowhere", "--store", "{tmp}/s"], "there is no folder '{tmp}/nowhere'"),
        (["index", "{tmp}/file.txt", "--store", "{tmp}/s"], "is a file; give the folder that holds it, '{tmp}'"),
        (["index", "{tmp}/void", "--store", "{tmp}/s"], "holds no text or Markdown file"),
        (["index", "{tmp}/texts", "--store", "{tmp}/file.txt"], "--store {tmp}/file.txt is a file"),
        (["index", "{tmp}/texts", "--store", "{tmp}/texts"], "is a folder with other things in it"),
        (["index", "{tmp}/texts", "--store", "{tmp}/s", "--model", "v1-0.6"], "did you mean 'v1-0.6b'?"),
        (["index", "{tmp}/texts", "--store", "{tmp}/s", "--dimensions", "9999"], "dimensions=9999 is out of range"),
        (["search", "tide", "--store", "{tmp}/s"], "there is no store {tmp}/s; make one with: pplx-embed index DIR"),
        (["search", " ", "--store", "{tmp}/s"], "the query is empty"),
        (["search", "tide", "--store", "gopher://here"], "no URL of a Qdrant server"),
        (["search", "tide", "--store", "http://127.0.0.1:9"], "cannot be reached"),
    ],
)
def test_mistakes_are_told_in_one_line(
    command: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "void").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    assert main([word.format(tmp=tmp_path) for word in command]) == 2
    error = capsys.readouterr().err
    assert told.format(tmp=tmp_path) in error
    assert error.startswith("pplx-embed: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_collection_of_somebody_else_is_refused(
    store: Path, folder: Path, index: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from qdrant_client.models import Distance, VectorParams

    client = QdrantClient(path=str(store))
    client.create_collection("documents", vectors_config=VectorParams(size=32, distance=Distance.COSINE))
    client.close()
    assert index(folder) == 2
    assert "was not made by `pplx-embed index`" in capsys.readouterr().err
    assert main(["search", "tide", "--store", str(store), "--collection", "mine"]) == 2
    assert "has no collection 'mine'; there are: documents" in capsys.readouterr().err


def test_a_store_in_use_is_told(store: Path, folder: Path, index: Run, capsys: pytest.CaptureFixture[str]) -> None:
    index(folder)
    client = QdrantClient(path=str(store))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert index(folder) == 2
    client.close()
    assert "is in use by another program" in capsys.readouterr().err
