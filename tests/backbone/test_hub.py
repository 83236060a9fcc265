"""The hub: what is in the cache needs no network, and every failure is a DownloadError that says what to do."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file

from pplx_embed_integrations import PplxEncoder, checkpoints
from pplx_embed_integrations.backbone import hub
from pplx_embed_integrations.checkpoints import resolve
from pplx_embed_integrations.errors import DownloadError

SPEC = resolve("v1-0.6b")


def cached(cache: Path, replica: Path, *, source: str, revision: str, ref: str | None = None) -> Path:
    """Lay a replica out as huggingface_hub's cache holds a repository."""
    repository = cache / f"models--{source.replace('/', '--')}"
    snapshot = repository / "snapshots" / revision
    shutil.copytree(replica, snapshot)
    if ref:
        (repository / "refs").mkdir()
        (repository / "refs" / ref).write_text(revision)
    return snapshot


def folder(cache: Path, name: str = "v1-0.6b", **options: Any) -> Path:
    defaults = {"cache_folder": str(cache), "local_files_only": False, "token": None}
    return hub.checkpoint_folder(resolve(name, revision=options.pop("revision", None)), **defaults | options)


@pytest.fixture
def cache(tmp_path: Path, replica_v1: Path) -> Path:
    cached(tmp_path, replica_v1, source=SPEC.source, revision=SPEC.revision or "")
    return tmp_path


def test_a_local_folder_is_itself(replica_v1: Path) -> None:
    assert folder(Path("unused"), str(replica_v1)) == replica_v1


@pytest.mark.parametrize("local_files_only", [False, True])
def test_a_pinned_revision_in_the_cache_needs_no_network(
    cache: Path, local_files_only: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    download = huggingface_hub.snapshot_download

    def spied(*args: Any, **options: Any) -> Any:
        asked.append(options["local_files_only"])
        return download(*args, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", spied)
    found = folder(cache, local_files_only=local_files_only)
    assert found.name == SPEC.revision
    assert asked == [True]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The registry, with the width of the replica that stands in for the published weights."""
    specs = tuple(replace(spec, dimension=32, min_dimension=4) for spec in checkpoints._PUBLISHED)
    monkeypatch.setattr(checkpoints, "_PUBLISHED", specs)


@pytest.mark.usefixtures("narrow")
def test_it_encodes_from_the_cache(cache: Path, replica_v1: Path) -> None:
    encoder = PplxEncoder("v1-0.6b", cache_folder=str(cache), dtype="float32").load()
    assert encoder.count_tokens(["late chunking"]) == PplxEncoder(replica_v1).count_tokens(["late chunking"])
    assert encoder.sentence_transformer.encode(["a"]).shape == (1, 32)


def test_shards_in_the_cache_count_as_complete_only_together(tmp_path: Path, replica_v1: Path) -> None:
    spec = resolve("v1-4b")
    snapshot = cached(tmp_path, replica_v1, source=spec.source, revision=spec.revision or "")
    tensors = load_file(snapshot / "model.safetensors")
    (snapshot / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, snapshot / file)
    (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert folder(tmp_path, "v1-4b") == snapshot
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DownloadError, match="neither in the local cache nor can the hub be reached"):
        folder(tmp_path, "v1-4b")


def test_a_branch_is_found_by_its_ref(tmp_path: Path, replica_context_v1: Path) -> None:
    source = resolve("context-v1-4b").source
    snapshot = cached(tmp_path, replica_context_v1, source=source, revision="f" * 40, ref="main")
    assert folder(tmp_path, "context-v1-4b", local_files_only=True) == snapshot


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


class Response:
    """As much of a response as the hub's errors look at."""

    status_code, headers, request, text = 404, dict[str, str](), None, ""


def http(kind: Callable[..., Exception]) -> Exception:
    return kind("the server says no", response=Response())


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (http(RevisionNotFoundError), "there is no perplexity-ai/pplx-embed-v1-0.6b at revision abc on the hub"),
        (http(GatedRepoError), "does not give out .*: pass token= if it is private or gated"),
        (http(RepositoryNotFoundError), "does not give out .*: pass token="),
        (http(HfHubHTTPError), r"nor can the hub be reached; .*HfHubHTTPError: the server says no"),
        (HTTPError("connection reset"), r"nor can the hub be reached; .*HTTPError: connection reset"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (LocalEntryNotFoundError("offline"), "nor can the hub be reached"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_failure_of_the_hub_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, message: str
) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(DownloadError, match=message) as caught:
        folder(tmp_path, revision="abc")
    assert caught.value.__cause__ is error


@pytest.mark.usefixtures("narrow")
def test_what_is_asked_of_the_hub(tmp_path: Path, replica_v1: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def download(source: str, **options: Any) -> str:
        asked.append({"source": source, **options})
        return str(replica_v1)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    PplxEncoder("PPLX-Embed-V1-0.6B", revision="main", cache_folder=str(tmp_path), token="hf_secret").load()
    [request] = asked
    patterns = request.pop("allow_patterns")
    assert request == {
        "source": "perplexity-ai/pplx-embed-v1-0.6b",
        "revision": "main",
        "cache_dir": str(tmp_path),
        "local_files_only": False,
        "token": "hf_secret",
    }
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in patterns)
    assert np.all([pattern.endswith((".json", ".safetensors")) for pattern in patterns])
