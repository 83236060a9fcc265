"""`pplx-embed index` and `search`: what is stored, what a second run does, and what an interruption costs."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from pplx_embed_integrations import PplxEncoder
from pplx_embed_integrations.cli import job, main
from pplx_embed_integrations.stores import ChunkTable

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
    """Every chunk in the store by source, in reading order, read with LanceDB alone."""
    table = lancedb.connect(str(store)).open_table(collection)
    rows = table.search().where("id IS NOT NULL").to_list()
    for row in rows:
        row["metadata"] = json.loads(row["metadata"])
    sources: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: row["metadata"]["start_index"]):
        sources.setdefault(row["metadata"]["source"], []).append(row)
    return sources


def codes_of(rows: list[Any]) -> Any:
    return np.array([row["codes"] for row in rows], dtype=np.int32)


def test_every_vector_knows_its_document(
    folder: Path, store: Path, index: Run, encoder_context_v1: PplxEncoder
) -> None:
    assert index(folder) == 0
    sources = stored(store)
    assert sorted(sources) == ["deep/plain.txt", *(f"note-{number}.md" for number in range(6))]
    for rows in sources.values():
        chunks = [row["text"] for row in rows]
        [expected] = encoder_context_v1.encode_documents([chunks])
        np.testing.assert_allclose(codes_of(rows), expected, atol=1)
        if len(chunks) > 1:
            assert np.abs(codes_of(rows) - encoder_context_v1.encode(chunks)).max() > 5


def test_chunks_tile_the_text_and_name_their_line(folder: Path, store: Path, index: Run) -> None:
    index(folder)
    for source, rows in stored(store).items():
        text = (folder / source).read_bytes().decode("utf-8-sig").replace("\r\n", "\n")
        end = 0
        for position, row in enumerate(rows):
            start, chunk = row["metadata"]["start_index"], row["text"]
            assert row["position"] == position
            assert text[start : start + len(chunk)] == chunk
            assert text[end:start].strip() == ""
            assert row["metadata"]["line"] == text[:start].count("\n") + 1
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
    assert [row["text"] for row in after["note-1.md"]] == ["# Note 1\n\nNow it is about rivers."]
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
    store_files = job.Job._store
    batches: list[int] = []

    def store_and_press(self: Any, files: Any, bar: Any) -> Any:
        batches.append(len(files))
        if len(batches) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return store_files(self, files, bar)

    monkeypatch.setattr(job.Job, "_store", store_and_press)
    assert index(folder) == 130
    done = sum(batches[:2])
    assert 0 < done < 7
    assert f"Stopped before {7 - done} files were indexed" in capsys.readouterr().out
    assert {len(rows) == rows[0]["metadata"]["chunks"] for rows in stored(store).values()} == {True}

    monkeypatch.setattr(job.Job, "_store", store_files)
    encodes.clear()
    assert index(folder) == 0
    assert sum(encodes) == 7 - done
    assert len(stored(store)) == 7


@pytest.fixture
def long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file that is read in several windows."""
    monkeypatch.setattr(PplxEncoder, "max_tokens", property(lambda self: 96, lambda self, value: None), raising=False)
    folder = tmp_path / "long"
    folder.mkdir()
    (folder / "log.txt").write_text(
        "".join(f"12:{n:02} worker {n} finished job {n * 7} of the survey\n" for n in range(50))
    )
    return folder


def stop_after(windows: int, encodes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Ctrl-C come when so many windows have been embedded and the next one is asked for."""
    encode = job.Job._encode

    def encode_or_stop(self: Any, *arguments: Any) -> Any:
        if len(encodes) == windows:
            monkeypatch.setattr(job.Job, "_encode", encode)
            raise KeyboardInterrupt
        return encode(self, *arguments)

    monkeypatch.setattr(job.Job, "_encode", encode_or_stop)


def test_a_long_file_is_stored_a_window_at_a_time_with_the_vectors_of_the_whole(
    long: Path,
    store: Path,
    index: Run,
    encodes: list[int],
    monkeypatch: pytest.MonkeyPatch,
    replica_context_v1: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stop_after(2, encodes, monkeypatch)
    assert index(long) == 130
    [half] = stored(store).values()
    assert 0 < len(half) < half[0]["metadata"]["chunks"]
    assert main(["search", "worker", "--store", str(store)]) == 0  # what is there can be found

    encodes.clear()
    assert index(long) == 0
    [whole] = stored(store).values()
    assert len(whole) == len({row["id"] for row in whole}) == whole[0]["metadata"]["chunks"]
    assert not any("unfinished" in row["metadata"] for row in whole)
    windows = PplxEncoder(replica_context_v1).windows(encoder_tokens(whole, replica_context_v1))
    assert len(encodes) == len(windows) - 2 > 2
    chunks = [row["text"] for row in whole]
    [expected] = PplxEncoder(replica_context_v1).encode_documents([chunks])
    np.testing.assert_allclose(codes_of(whole), expected, atol=1)
    encodes.clear()
    capsys.readouterr()
    assert index(long) == 0
    assert encodes == []
    assert "0 files indexed, 1 unchanged" in capsys.readouterr().out


def encoder_tokens(rows: list[Any], model: Path) -> list[int]:
    return PplxEncoder(model).count_tokens([row["text"] for row in rows])


def test_a_long_file_that_changes_half_way_leaves_nothing_of_its_former_content(
    long: Path, store: Path, index: Run, encodes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert index(long) == 0
    old = (long / "log.txt").read_text()
    (long / "log.txt").write_text(old.replace("survey", "census"))
    encodes.clear()
    stop_after(2, encodes, monkeypatch)
    assert index(long) == 130
    [mixed] = stored(store).values()
    assert sum("survey" in row["text"] for row in mixed) == 50  # the old one is whole
    assert any("census" in row["text"] for row in mixed)
    (long / "log.txt").write_text(old.replace("survey", "review"))
    assert index(long) == 0
    [whole] = stored(store).values()
    assert len(whole) == whole[0]["metadata"]["chunks"]
    assert {row["text"].count("survey") + row["text"].count("census") for row in whole} == {0}


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
    rows = [row for rows in stored(store).values() for row in rows]
    query = "Ebb and flow follow the moon."
    codes = codes_of(rows).astype(float)
    cosines = codes @ biencoder.embed_query(query) / np.linalg.norm(codes, axis=1)
    best = rows[int(np.argmax(cosines))]
    capsys.readouterr()
    assert main(["search", query, "--store", str(store), "--limit", "3"]) == 0
    output = capsys.readouterr().out
    metadata = best["metadata"]
    assert output.startswith(f"1. {folder}/{metadata['source']}:{metadata['line']}  ({max(cosines):.3f})\n")
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
    rows = [row for rows in stored(store).values() for row in rows]
    assert {(len(row["bits"]), "codes" in row) for row in rows} == {(2, False)}
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
    rows = [row for rows in stored(store).values() for row in rows]
    np.testing.assert_allclose(codes_of(rows), encoder_v1.encode([row["text"] for row in rows]), atol=1)


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
        (["search", "tide", "--store", "gopher://here"], "no place that is known; give a folder, or s3://"),
        (["search", "tide", "--store", "http://127.0.0.1:6333"], "earlier versions kept collections in Qdrant"),
        (["index", "{tmp}/texts", "--store", "{tmp}/qdrant"], "in Qdrant's format, which earlier versions wrote"),
        (["search", "tide", "--store", "{tmp}/qdrant"], "index again into a new folder: pplx-embed index DIR"),
    ],
)
def test_mistakes_are_told_in_one_line(
    command: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("text")
    (tmp_path / "void").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("text")
    (tmp_path / "qdrant" / "collection").mkdir(parents=True)
    (tmp_path / "qdrant" / "meta.json").write_text("{}")
    assert main([word.format(tmp=tmp_path) for word in command]) == 2
    error = capsys.readouterr().err
    assert told.format(tmp=tmp_path) in error
    assert error.startswith("pplx-embed: error: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "s").exists()


def test_a_collection_of_somebody_else_is_refused(
    store: Path, folder: Path, index: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    ChunkTable(store, name="documents", made_by={"model": "mine"}, dimensions=32)
    assert index(folder) == 2
    assert "was not made by `pplx-embed index`" in capsys.readouterr().err
    assert main(["search", "tide", "--store", str(store), "--collection", "mine"]) == 2
    assert "has no collection 'mine'; there are: documents" in capsys.readouterr().err


def test_a_collection_of_another_arithmetic_is_searched_and_not_added_to(
    folder: Path, store: Path, index: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    identity = PplxEncoder.identity
    monkeypatch.setattr(PplxEncoder, "identity", lambda self: identity(self).replace("float32", "bfloat16"))
    assert index(folder) == 2
    assert "dtype 'float32', not 'bfloat16', as this machine has it" in capsys.readouterr().err
    assert main(["search", "tide", "--store", str(store)]) == 0


def test_a_collection_opens_as_a_langchain_store(
    folder: Path, store: Path, index: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    from pplx_embed_integrations.langchain import PplxEmbeddings, QuantizedVectorStore

    assert index(folder, "--model", "miniature") == 0
    query = "Which note is about the tide?"
    capsys.readouterr()
    main(["search", query, "--store", str(store), "--limit", "3"])
    opened = QuantizedVectorStore(PplxEmbeddings("miniature"), store, name="documents")
    places = [
        f"{chunk.metadata['folder']}/{chunk.metadata['source']}:{chunk.metadata['line']}  ({score:.3f})"
        for chunk, score in opened.similarity_search_with_score(query, k=3)
    ]
    assert re.findall(r"^\d\. (.*)$", capsys.readouterr().out, re.MULTILINE) == places


def test_the_old_version_is_found_until_the_new_one_is_stored(
    folder: Path, store: Path, index: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index(folder)
    before = len(stored(store)["note-1.md"])
    (folder / "note-1.md").write_text("# Note 1\n\nNow it is about rivers.", encoding="utf-8")
    capsys.readouterr()
    replace = ChunkTable.replace
    during: list[str] = []

    def search_and_replace(self: ChunkTable, *arguments: Any) -> Any:
        assert main(["search", "Note 1 says thing 0 about the tide.", "--store", str(store), "--limit", "99"]) == 0
        during.append(capsys.readouterr().out)
        return replace(self, *arguments)

    monkeypatch.setattr(ChunkTable, "replace", search_and_replace)
    assert index(folder) == 0
    [output] = during
    assert output.count("note-1.md") == before > 1
