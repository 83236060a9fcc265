"""The hub: what is in the cache needs no network, a branch is its commit, and every failure says what to do."""

import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pplx_embed_integrations import PplxBiEncoder, PplxEncoder, checkpoints
from pplx_embed_integrations.backbone import hub
from pplx_embed_integrations.checkpoints import CheckpointSpec, resolve
from pplx_embed_integrations.errors import CheckpointError, DownloadError
from tests.backbone.hub_server import Hub, Repository, serve

SPEC = resolve("v1-0.6b")
FINE_TUNE = "Someone/pplx-embed-v1-0.6b"
A, B = "a" * 40, "b" * 40


def cached(cache: Path, replica: Path, *, source: str, revision: str, ref: str | None = None) -> Path:
    """Lay a replica out as huggingface_hub's cache holds a repository."""
    repository = cache / f"models--{source.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    shutil.copytree(replica, snapshot)
    if ref:
        (repository / "refs").mkdir()
        (repository / "refs" / ref).write_text(revision)
    return snapshot


def options(cache: Path, **changes: Any) -> dict[str, Any]:
    return {"cache_folder": str(cache), "local_files_only": False, "token": None} | changes


def folder(cache: Path, name: str = "v1-0.6b", *, revision: str | None = None, **changes: Any) -> Path:
    return hub.checkpoint_folder(resolve(name, revision=revision), **options(cache, **changes))


@pytest.fixture
def cache(tmp_path: Path, replica_v1: Path) -> Path:
    cached(tmp_path, replica_v1, source=SPEC.source, revision=SPEC.revision or "")
    return tmp_path


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub that answers, as if it were the public one."""
    with serve() as running:
        point_at(running.url, monkeypatch)
        yield running


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry, with the width of the replica that stands in for the published weights."""
    specs = tuple(replace(spec, dimension=32, min_dimension=4) for spec in checkpoints._PUBLISHED)
    monkeypatch.setattr(checkpoints, "_PUBLISHED", specs)


def shard(snapshot: Path) -> None:
    tensors = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, snapshot / file)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))


def test_a_local_folder_is_itself(replica_v1: Path) -> None:
    assert folder(Path("unused"), str(replica_v1)) == replica_v1


# What is in the cache


@pytest.mark.parametrize("local_files_only", [False, True])
def test_a_pinned_revision_in_the_cache_needs_no_network(cache: Path, local_files_only: bool, online: Hub) -> None:
    found = folder(cache, local_files_only=local_files_only)
    assert found.name == SPEC.revision
    assert online.asked == []


@pytest.mark.usefixtures("narrow")
def test_it_encodes_from_the_cache(cache: Path, replica_v1: Path) -> None:
    encoder = PplxEncoder("v1-0.6b", cache_folder=str(cache), dtype="float32").load()
    assert encoder.count_tokens(["late chunking"]) == PplxEncoder(replica_v1).count_tokens(["late chunking"])
    assert encoder.sentence_transformer.encode(["a"]).shape == (1, 32)


def test_shards_in_the_cache_count_as_complete_only_together(tmp_path: Path, replica_v1: Path) -> None:
    spec = resolve("v1-4b")
    snapshot = cached(tmp_path, replica_v1, source=spec.source, revision=spec.revision or "")
    shard(snapshot)
    assert folder(tmp_path, "v1-4b") == snapshot
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DownloadError, match="neither in the local cache nor can the hub be reached"):
        folder(tmp_path, "v1-4b")


def test_a_branch_is_found_by_its_ref(tmp_path: Path, replica_context_v1: Path) -> None:
    spec = resolve("context-v1-4b")
    snapshot = cached(tmp_path, replica_context_v1, source=spec.source, revision=A, ref="main")
    for changes in ({"local_files_only": True}, {}):  # said so, or HF_HUB_OFFLINE
        assert folder(tmp_path, "context-v1-4b", **changes) == snapshot
        assert hub.commit_of(spec, **options(tmp_path, **changes)) == A


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("local_files_only", [False, True])
def test_half_a_download_is_no_copy(cache: Path, missing: str, local_files_only: bool) -> None:
    (cache / f"models--{SPEC.source.replace('/', '--')}" / "snapshots" / (SPEC.revision or "") / missing).unlink()
    with pytest.raises(DownloadError):
        folder(cache, local_files_only=local_files_only)


def test_nothing_in_the_cache_and_no_network(tmp_path: Path) -> None:
    with pytest.raises(
        DownloadError, match=r"neither in the local cache nor can the hub be reached; check the network"
    ):
        PplxEncoder("v1-0.6b", cache_folder=str(tmp_path)).encode(["a"])
    with pytest.raises(OSError, match=r"local_files_only=True; download it once with it off"):
        PplxEncoder("v1-0.6b", cache_folder=str(tmp_path), local_files_only=True).encode(["a"])


# What is downloaded


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize("sharded", [False, True])
def test_data_is_downloaded_and_no_code(tmp_path: Path, replica_v1: Path, online: Hub, sharded: bool) -> None:
    origin = tmp_path / "origin"
    shutil.copytree(replica_v1, origin)
    (origin / "modeling.py").write_text("raise SystemExit")
    if sharded:
        shard(origin)
    online.repositories[SPEC.source] = Repository({SPEC.revision or "": origin})
    encoder = PplxEncoder("PPLX-Embed-V1-0.6B", cache_folder=str(tmp_path / "cache"), dtype="float32")
    assert online.asked == []  # nothing before the first vector
    expected = PplxEncoder(replica_v1, dtype="float32").encode(["a text"])
    np.testing.assert_array_equal(encoder.encode(["a text"]), expected)
    assert all(name.endswith((".json", ".safetensors")) for name in online.downloaded())
    online.asked.clear()
    again = PplxEncoder("v1-0.6b", cache_folder=str(tmp_path / "cache"), dtype="float32")
    np.testing.assert_array_equal(again.encode(["a text"]), expected)
    assert online.asked == []


def test_an_interrupted_download_goes_on(cache: Path, replica_v1: Path, online: Hub) -> None:
    online.repositories[SPEC.source] = Repository({SPEC.revision or "": replica_v1})
    (cache / f"models--{SPEC.source.replace('/', '--')}/snapshots/{SPEC.revision}/model.safetensors").unlink()
    assert (folder(cache) / "model.safetensors").is_file()
    assert online.downloaded() == {"model.safetensors"}


# Repositories that are not in the list


@pytest.fixture
def fine_tunes(online: Hub, replica_v1: Path, replica_context_v1: Path, tmp_path: Path) -> Hub:
    """Two commits of a fine-tuned v1, one of a fine-tuned context model, and a foreign model."""
    second, foreign, empty = (tmp_path / name for name in ("second", "foreign", "empty"))
    shutil.copytree(replica_v1, second)
    tensors = load_file(second / "model.safetensors")
    save_file(tensors | {"norm.weight": tensors["norm.weight"].flip(0).contiguous()}, second / "model.safetensors")
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "bert", "auto_map": {"AutoModel": "modeling.Evil"}}')
    empty.mkdir()
    online.repositories |= {
        FINE_TUNE: Repository({A: replica_v1, B: second}, {"main": A, "next": B}),
        "someone/context": Repository({A: replica_context_v1}, {"main": A}),
        "someone/bert": Repository({A: foreign}, {"main": A}),
        "someone/empty": Repository({A: empty}, {"main": A}),
        "someone/private": Repository({A: replica_v1}, {"main": A}, token="hf_secret"),
        "someone/gated": Repository({A: replica_v1}, {"main": A}, gated=True),
    }
    return online


def encoder_of(name: str, tmp_path: Path, **changes: Any) -> PplxEncoder:
    return PplxEncoder(name, cache_folder=str(tmp_path / "cache"), dtype="float32", **changes)


def test_a_fine_tuned_copy_works_by_its_configuration(fine_tunes: Hub, tmp_path: Path, replica_v1: Path) -> None:
    encoder = encoder_of(f" {FINE_TUNE} ", tmp_path)
    assert encoder.checkpoint == CheckpointSpec(FINE_TUNE, FINE_TUNE, A, 32, 4, 32768, False)
    assert fine_tunes.downloaded() == {"config.json"}  # no weights yet
    expected = PplxEncoder(replica_v1, dtype="float32").encode(["a text"])
    np.testing.assert_array_equal(encoder.encode(["a text"]), expected)
    assert encoder_of("someone/context", tmp_path).encode_documents([["one", "two"]])[0].shape == (2, 32)


def test_a_branch_is_pinned_by_its_commit(fine_tunes: Hub, tmp_path: Path) -> None:
    encoder = encoder_of(FINE_TUNE, tmp_path)
    fine_tunes.repositories[FINE_TUNE].branches["main"] = B  # pushed meanwhile
    first = encoder.encode(["a text"])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder)).encode(["a text"]), first)
    moved = encoder_of(FINE_TUNE, tmp_path)
    assert (encoder.checkpoint.revision, moved.checkpoint.revision) == (A, B)
    assert not np.array_equal(moved.encode(["a text"]), first)
    np.testing.assert_array_equal(encoder_of(FINE_TUNE, tmp_path, revision=A).encode(["a text"]), first)
    assert encoder_of(FINE_TUNE, tmp_path, revision="next").checkpoint.revision == B


def test_the_cache_stands_in_for_a_hub_out_of_reach(fine_tunes: Hub, tmp_path: Path) -> None:
    vectors = encoder_of(FINE_TUNE, tmp_path).encode(["a text"])
    fine_tunes.status = 503
    for changes in ({}, {"local_files_only": True}, {"revision": A}):
        encoder = encoder_of(FINE_TUNE, tmp_path, **changes)
        assert encoder.checkpoint.revision == A
        np.testing.assert_array_equal(encoder.encode(["a text"]), vectors)
    with pytest.raises(DownloadError, match=r"next is neither in the local cache nor can the hub be reached.*503"):
        encoder_of(FINE_TUNE, tmp_path, revision="next")
    with pytest.raises(DownloadError, match=r"next is not in the local cache and local_files_only=True"):
        encoder_of(FINE_TUNE, tmp_path, revision="next", local_files_only=True)


def test_two_sides_are_compared_when_the_pair_is_made(fine_tunes: Hub, tmp_path: Path) -> None:
    hub_options = {"cache_folder": str(tmp_path / "cache"), "dtype": "float32"}
    pair = PplxBiEncoder(query_model=FINE_TUNE, document_model="someone/context", **hub_options)
    assert pair.options["query_model"] == FINE_TUNE
    assert (pair.options["query_revision"], pair.options["document_revision"]) == (A, A)
    fine_tunes.repositories[FINE_TUNE].branches["main"] = B
    assert pair.query.checkpoint.revision == A
    assert pair.encode_documents([["one", "two"]])[0].shape == (2, 32)
    with pytest.raises(CheckpointError, match=r"Someone/.* gives 32 dimensions and context-v1-4b 2560"):
        PplxBiEncoder(query_model=FINE_TUNE, document_model="context-v1-4b", **hub_options)
    assert PplxBiEncoder(FINE_TUNE, **hub_options).dimension == 32


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("someone/bert", CheckpointError, r"someone--bert.*has model_type 'bert'; a pplx-embed checkpoint has"),
        ("someone/empty", CheckpointError, r"someone/empty at revision main has no config\.json on the hub"),
        ("someone/absent", DownloadError, r"does not give out someone/absent .*pass token=.*check the spelling"),
        (FINE_TUNE.lower(), DownloadError, "upper and lower case differ"),
        ("someone/private", DownloadError, r"someone/private .*pass token= if it is private or gated"),
        ("someone/gated", DownloadError, r"pass token= .*ask for access at http.*/someone/gated"),
        ("perplexity-ai/pplx-embed-v1-06b", DownloadError, r"no folder '.*' either; did you mean 'v1-0\.6b'\?"),
        ("models/absent", DownloadError, "There is no folder 'models/absent' either"),
    ],
)
@pytest.mark.usefixtures("fine_tunes")
def test_a_repository_that_cannot_be_used_says_why(
    name: str, error: type[Exception], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        encoder_of(name, tmp_path)


def test_a_token_opens_a_private_repository(fine_tunes: Hub, tmp_path: Path) -> None:
    assert encoder_of("someone/private", tmp_path, token="hf_secret").encode(["a"]).shape == (1, 32)
    with pytest.raises(DownloadError, match="pass token=") as caught:
        PplxEncoder("someone/private", cache_folder=str(tmp_path / "other"), token="hf_wrong")
    assert "hf_wrong" not in str(caught.value)


def test_a_revision_that_is_not_there(fine_tunes: Hub, tmp_path: Path) -> None:
    encoder_of(FINE_TUNE, tmp_path)
    for revision in ("typo", "c" * 40):
        with pytest.raises(DownloadError, match=f"there is no {FINE_TUNE} at revision {revision} on the hub"):
            encoder_of(FINE_TUNE, tmp_path, revision=revision)


def test_a_folder_comes_before_the_hub(
    fine_tunes: Hub, tmp_path: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(replica_v1, tmp_path / FINE_TUNE)
    monkeypatch.chdir(tmp_path)
    assert PplxEncoder(FINE_TUNE).checkpoint.local
    with pytest.raises(CheckpointError, match="there is no checkpoint or folder"):
        PplxEncoder(Path("someone/context"))  # a path is never a hub id
    assert fine_tunes.asked == []


@pytest.mark.parametrize(
    "name", ["v1-06b", "minature", "./someone/model", "a/b/c", "~/model", "-a/b", "a--b/c", "a/b."]
)
def test_other_names_never_reach_the_network(online: Hub, name: str) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint or folder"):
        PplxEncoder(name)
    assert online.asked == []


# Which commit it is


def test_the_commit_of_a_branch_costs_no_weights(online: Hub, tmp_path: Path, replica_context_v1: Path) -> None:
    spec = resolve("context-v1-4b")
    repository = online.repositories[spec.source] = Repository({A: replica_context_v1}, {"main": A})
    assert hub.commit_of(spec, **options(tmp_path)) == A
    assert online.downloaded() <= {"config.json"}
    online.asked.clear()
    assert hub.commit_of(spec, **options(tmp_path)) == A
    assert online.asked == [("HEAD", "main", "config.json")]  # one question, no answer to download
    repository.branches["main"], repository.commits[B] = B, replica_context_v1
    assert hub.commit_of(spec, **options(tmp_path)) == B
    online.status = 500
    assert hub.commit_of(spec, **options(tmp_path)) == B  # remembered
    with pytest.raises(DownloadError, match="nor can the hub be reached"):
        hub.commit_of(spec, **options(tmp_path / "other"))


def test_a_pinned_commit_is_itself(online: Hub, tmp_path: Path) -> None:
    assert hub.commit_of(SPEC, **options(tmp_path)) == SPEC.revision
    assert online.asked == []


# What goes wrong on the way

SILENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pplx_embed_integrations import DownloadError, PplxEncoder
def load(name):
    try:
        PplxEncoder(name, cache_folder=sys.argv[1]).load()
    except DownloadError as error:
        return str(error)
with ThreadPoolExecutor() as threads:
    print(*threads.map(load, sys.argv[2:]), sep="\\n")
"""


def test_a_silent_hub_is_given_up(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the connection is accepted, and nothing comes
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        environment = {**os.environ, "HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HUB_ETAG_TIMEOUT": "1"}
        run = subprocess.run(
            [sys.executable, "-c", SILENT, str(tmp_path), "v1-0.6b", FINE_TUNE, "context-v1-4b"],
            env=environment, capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    errors = run.stdout.splitlines()
    assert len(errors) == 3
    for error in errors:
        assert f"{url} did not answer in 1 seconds" in error
        assert "HF_HUB_ETAG_TIMEOUT" in error


def test_a_silent_hub_leaves_what_is_in_the_cache(
    fine_tunes: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder_of(FINE_TUNE, tmp_path).load()
    fine_tunes.silent = True
    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    assert encoder_of(FINE_TUNE, tmp_path).encode(["a"]).shape == (1, 32)


def test_a_hub_that_cannot_be_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    point_at(url, monkeypatch)  # nobody listens there any more
    with pytest.raises(DownloadError, match=r"nor can the hub be reached; check the network.*ConnectError"):
        encoder_of(FINE_TUNE, tmp_path)


def test_a_cache_that_cannot_be_written(fine_tunes: Hub, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where a folder is needed")
    with pytest.raises(DownloadError, match=r"cannot be kept in the cache folder .*cache_folder= or .*HF_HOME"):
        encoder_of(FINE_TUNE, tmp_path)


def test_a_full_disk_is_told(fine_tunes: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = encoder_of(FINE_TUNE, tmp_path)

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(DownloadError, match=r"cannot be kept .*No space left on device.*make room"):
        encoder.load()


def test_a_repository_without_safetensors(fine_tunes: Hub, tmp_path: Path, replica_v1: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(replica_v1, bare)
    (bare / "model.safetensors").rename(bare / "pytorch_model.bin")
    fine_tunes.repositories["someone/bare"] = Repository({A: bare}, {"main": A})
    with pytest.raises(CheckpointError, match=rf"someone/bare at revision {A} has no model\.safetensors on the hub"):
        encoder_of("someone/bare", tmp_path).load()


def damage(snapshot: Path, file: str) -> Path:
    """Cut a file of the cache in half; return the blob that it leads to."""
    blob = (snapshot / file).resolve()
    assert blob.parent.name == "blobs"
    blob.write_bytes(blob.read_bytes()[:-40] if file.endswith("safetensors") else b'{"')
    return blob


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "weights"])
def test_a_damaged_file_of_the_cache_is_named_by_its_blob(
    fine_tunes: Hub, tmp_path: Path, file: str, sharded: bool
) -> None:
    if sharded:
        origin = tmp_path / "sharded"
        shutil.copytree(fine_tunes.repositories[FINE_TUNE].commits[A], origin)
        shard(origin)
        fine_tunes.repositories[FINE_TUNE].commits[A] = origin
    encoder = encoder_of(FINE_TUNE, tmp_path).load()
    vectors = encoder.encode(["a text"])
    snapshot = hub.checkpoint_folder(encoder.checkpoint, **options(tmp_path / "cache"))
    if file == "weights":
        file = "model-00002-of-00002.safetensors" if sharded else "model.safetensors"
    blob = damage(snapshot, file)
    encoder.close()  # else what is loaded is shared, and the file is not read again
    with pytest.raises(CheckpointError, match="link into the hub's cache") as caught:
        encoder_of(FINE_TUNE, tmp_path).load()
    command = str(caught.value).rpartition(": ")[2]
    assert command == f"rm {blob}"
    subprocess.run(command, shell=True, check=True)  # what the message says to type
    np.testing.assert_array_equal(encoder_of(FINE_TUNE, tmp_path).encode(["a text"]), vectors)


def test_a_damaged_index_of_the_cache_is_named_by_its_blob(fine_tunes: Hub, tmp_path: Path) -> None:
    origin = tmp_path / "sharded"
    shutil.copytree(fine_tunes.repositories[FINE_TUNE].commits[A], origin)
    shard(origin)
    fine_tunes.repositories[FINE_TUNE].commits[A] = origin
    encoder = encoder_of(FINE_TUNE, tmp_path)
    blob = damage(
        hub.checkpoint_folder(encoder.checkpoint, **options(tmp_path / "cache")), "model.safetensors.index.json"
    )
    with pytest.raises(CheckpointError, match=f"index.json' cannot be read as JSON .*: rm {blob}"):
        encoder.load()
    blob.unlink()
    assert encoder.encode(["a text"]).shape == (1, 32)
