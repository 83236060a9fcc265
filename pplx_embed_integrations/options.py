"""Every option once: its type, default, check and description, and whether it changes a vector.

Knows what can be checked of an option without a checkpoint; must not know checkpoints, models or frameworks.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args
from urllib.parse import urlsplit

from .errors import InputError, InputTypeError
from .inputs import check_positive, check_text
from .registry import BACKENDS, BackendName
from .schema import Options, decisive, either, option
from .secret import Secret

PERPLEXITY = "perplexity"
"""What `base_url` says for the hosted API."""

Quantization = Literal["int8", "binary", "ubinary"]
"""`"int8"` codes, `"binary"` ±1 as int8, `"ubinary"` bits packed into uint8, most significant bit first."""

if TYPE_CHECKING:
    import torch

    from .embedder import Embedder

    Dtype: TypeAlias = str | torch.dtype
    Model: TypeAlias = str | Path | Embedder
    Key: TypeAlias = str | Secret
else:
    Key = Any  # also what has get_secret_value()
    Dtype = str  # torch takes a second to import
    Model = Any  # what an embedder is, the pair knows


def _left(value: Any) -> Any:
    """Check nothing yet: it depends on the checkpoint."""
    return value


def check_quantization(quantization: object) -> Quantization | None:
    """Return `quantization` if it is one, and refuse anything else.

    Raises:
        InputError: It is not `"int8"`, `"binary"`, `"ubinary"` or `None`.

    Example:
        >>> check_quantization("int8")
        'int8'
    """
    if quantization is None or quantization in get_args(Quantization):
        return cast("Quantization | None", quantization)
    raise InputError(f'quantization={quantization!r} is unknown; use "int8", "binary", "ubinary" or None (float32)')


def check_base_url(base_url: object) -> str:
    """Return a server's address without what every route begins with, or `"perplexity"`.

    Raises:
        InputError: It is no address, or holds a user's name, a password or a query.
        InputTypeError: It is no string.

    Example:
        >>> check_base_url("http://gpu:8080/v1/"), check_base_url("https://api.perplexity.ai")
        ('http://gpu:8080', 'perplexity')
    """
    url = check_text(base_url, name="base_url").strip()
    if url.lower() == PERPLEXITY:
        return PERPLEXITY
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:  # a port that is no number, brackets that do not close
        parts, host = urlsplit(""), None
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise InputError("base_url must hold neither a user's name nor a password, which logs would show; use api_key=")
    if parts.scheme not in ("http", "https") or not host or parts.query or parts.fragment:
        raise InputError(f'base_url={url!r} is no address; use one like "http://gpu:8080", or "perplexity"')
    if host == "api.perplexity.ai":
        return PERPLEXITY
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/').removesuffix('/v1')}".rstrip("/")


def _check_seconds(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputTypeError(f"{name} must be a number of seconds, not {type(value).__name__}")
    if not 0 < value < float("inf"):
        raise InputError(f"{name}={value} is out of range; it must be more than 0 seconds")
    return float(value)


def _check_device(device: object) -> str:
    if not isinstance(device, str) and type(device).__module__ != "torch":
        raise InputError(f'device={device!r} is unknown; use "cpu", "cuda", "cuda:1" or "mps"')
    return str(device)


def _check_devices(devices: object) -> tuple[str, ...]:
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise InputTypeError(
            f'devices={devices!r} must be a list of names, as in devices=["cuda:0", "cuda:1"] or ["cpu", "cpu"]; one '
            "name is for device="
        )
    for position, name in enumerate(devices):
        check_text(name, name=f"device {position} of devices")
    if not devices:
        raise InputError(
            'devices=[] is empty; name a device for each worker, as in ["cuda:0", "cuda:1"], or leave it out'
        )
    # The first says what this process may use, and is not there on every system.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for name, count in Counter(devices).items():
        most = max(2, cores) if name.partition(":")[0] == "cpu" else 4
        if count > most:
            raise InputError(f"devices has {name!r} {count} times; on this machine {most} times is the most")
    return tuple(devices)


def _check_backend(backend: object) -> str:
    if backend not in tuple(BACKENDS):  # one that is registered at run time is in no Literal
        raise InputError(f"backend={backend!r} is unknown; use {either(tuple(BACKENDS))}, or leave it out")
    return str(backend)


def _check_dtype(dtype: object) -> str:
    name = str(dtype).removeprefix("torch.")
    if name in ("float16", "half", "fp16"):
        raise InputError(
            'dtype="float16" overflows in these models and gives NaN vectors; use "bfloat16" (same size) or "float32"'
        )
    if name not in ("auto", "float32", "bfloat16"):
        raise InputError(f'dtype={dtype!r} is unknown; use "auto", "float32" or "bfloat16"')
    return name


class HubOptions(Options):
    """Where files come from."""

    cache_folder: str | Path | None = option("The hub's cache folder", default=None, absent="the hub's own")
    local_files_only: bool = option("Never touch the network", default=False)
    token: str | bool | None = option("Access token, in no dump", default=None, absent="the hub's own", secret=True)


class ServerOptions(Options):
    """Where a model runs, if not in this process."""

    base_url: str | None = option(
        'A server\'s address, `"http://gpu:8080"`, or `"perplexity"` for the hosted API',
        default=None,
        absent="this process",
        check=check_base_url,
    )
    api_key: Key | None = option(
        "Key for it, in no repr, dump, pickle or error",
        default=None,
        absent="the environment's",
        secret=True,
        check=Secret,
    )


class SideOptions(HubOptions):
    """How a model runs: the same for both sides of a pair."""

    device: str | None = option(
        'Where it runs: `"cpu"`, `"cuda"`, `"cuda:1"` or `"mps"`', default=None, absent="the best", check=_check_device
    )
    devices: Sequence[str] | None = option(
        'Several in place of one, `["cuda:0", "cuda:1"]` or `["cpu", "cpu"]`: a worker process on each, until `close`',
        default=None,
        absent="none",
        check=_check_devices,
    )
    dtype: Dtype = decisive(
        '`"float32"`, `"bfloat16"`, or `"auto"`: bfloat16 where the processor computes in it and the model is large',
        default="auto",
        check=_check_dtype,
    )
    weights: Literal["int8"] | None = decisive(
        '`"int8"` for linear layers in 8 bits: faster on a CPU, less exact', default=None, absent="those of `dtype`"
    )
    # The arithmetic of backends differs by more than the order of additions: cosines of 0.998 were measured.
    backend: BackendName = decisive(
        '`"torch"`, or `"openvino"`: faster on a CPU, needs the extra of that name',
        default="torch",
        check=_check_backend,
    )
    attention: Literal["sdpa", "blocked", "varlen"] | None = option(
        '`"sdpa"`, `"blocked"` or `"varlen"` in place of the fastest kernel', default=None, absent="the fastest"
    )
    max_tokens: int | None = decisive(
        "Longest sequence; longer documents are read in windows", default=None, absent="the model's", check=_left
    )
    batch_tokens: int | None = option(
        "Tokens in a forward pass, which bounds memory; a longer sequence goes alone",
        default=None,
        absent="the device's",
        check=partial(check_positive, "batch_tokens"),
    )
    truncate: bool = decisive("Cut a text of more than `max_tokens` tokens instead of refusing it", default=False)

    def __post_init__(self) -> None:
        """Refuse options that exclude each other."""
        if self.devices is not None and self.device is not None:
            raise InputError(
                f"device={self.device!r} and devices={list(self.devices)!r} exclude each other; leave one of them out"
            )
        if self.attention is not None and self.backend != "torch":
            raise InputError(
                f"attention={self.attention!r} is for torch, and backend={self.backend!r} has its own; leave it out"
            )


class EncoderOptions(SideOptions):
    """One checkpoint."""

    model: str | Path = decisive("Name, hub id, or path of a local folder", kw_only=False, check=_left)
    revision: str | None = decisive("Commit, tag or branch on the hub", default=None, absent="pinned")


class RemoteOptions(ServerOptions):
    """One model on a server."""

    model: str = option("Its name there", kw_only=False)
    base_url: str = option(
        'The server\'s address, `"http://gpu:8080"`, or `"perplexity"` for the hosted API', check=check_base_url
    )
    timeout: float = option(
        "Seconds to wait for the answer to a request", default=600.0, check=partial(_check_seconds, "timeout")
    )
    max_retries: int = option(
        "How often a request is sent again that met a failing connection or a server without time",
        default=6,
        check=partial(check_positive, "max_retries", smallest=0),
    )
    concurrency: int = option(
        "Requests of a call that are under way at once", default=4, check=partial(check_positive, "concurrency")
    )


class PairOptions(SideOptions, ServerOptions):
    """A checkpoint for queries and one for documents, and the form of their vectors."""

    query_model: Model | None = decisive(
        "Checkpoint, folder or `Embedder` for queries", default=None, absent="the pair's"
    )
    document_model: Model | None = decisive(
        "Checkpoint, folder or `Embedder` for documents", default=None, absent="the pair's"
    )
    query_revision: str | None = decisive("Commit on the hub for queries", default=None, absent="pinned")
    document_revision: str | None = decisive("Commit on the hub for documents", default=None, absent="pinned")
    dimensions: int | None = decisive("Cut vectors to so many numbers (Matryoshka)", default=None, absent="all")
    quantization: Quantization | None = decisive(
        '`"int8"`, `"binary"` (±1) or `None` (float32)', default="int8", check=check_quantization
    )
    normalize: bool = decisive("Unit length, so that cosine, inner product and L2 rank alike", default=True)
    query_cache: int = option(
        "How many query vectors are kept for queries that come again, until `close`",
        default=0,
        check=partial(check_positive, "query_cache", smallest=0),
    )


class BiEncoderOptions(PairOptions):
    """A pair by its name."""

    model: Model = decisive(
        'A pair (`"0.6b"`, `"4b"`, `"miniature"`), or one checkpoint, folder or `Embedder` for both sides',
        default="0.6b",
        kw_only=False,
    )
    show_progress: bool = option("Show a bar that counts tokens while documents are embedded", default=False)
