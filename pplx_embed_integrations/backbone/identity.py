"""Which weights an encoder has, whatever they are called: by their commit on the hub, by their content in a folder.

Knows which files decide a vector and when they were last changed; must not know how they are loaded.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import CheckpointSpec
from ..errors import CheckpointError
from ..files import weight_names
from .devices import resolve_dtype
from .hub import commit_of, config_folder
from .qwen3.network import NetworkConfig, empty_network, tensor_shapes

_SETTINGS = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_LARGE = 1024
"""Width from which a published model, or one made of it, is large whatever else its `config.json` says."""

_hashing = threading.Lock()
_folders: dict[str, Path] = {}
"""Where the content of a folder was last seen."""

Stamps = tuple[tuple[str, int, int, int, int, int], ...]


class Origin:
    """What a checkpoint's name meant when an encoder first asked, which it means to that encoder from then on.

    Args:
        spec: The checkpoint.
        hub: `cache_folder`, `local_files_only` and `token`.

    Attributes:
        spec: The checkpoint, with its commit where it is on the hub.

    Raises:
        DownloadError: A branch is asked for, and neither the cache nor the hub says what it means.
    """

    def __init__(self, spec: CheckpointSpec, hub: Mapping[str, Any]) -> None:
        self.spec = spec if spec.local else replace(spec, revision=commit_of(spec, **hub))
        self.stamps = _stamps(Path(spec.source)) if spec.local else ()
        self._content: str | None = None

    def name(self) -> str:
        """Return `owner/name@commit`, or a hash of the files in the folder that decide a vector.

        Raises:
            CheckpointError: The files have changed since they were first looked at.
        """
        if not self.spec.local:
            return f"{self.spec.source}@{self.spec.revision}"
        if self._content is None:
            folder = Path(self.spec.source)
            self.check()
            with _hashing:
                content = _content_hash(folder, self.stamps)
                _folders[content] = folder
            self.check()  # for what has changed while it was read
            self._content = content
        return self._content

    def check(self) -> None:
        """Refuse to load other files than those that were first looked at.

        Raises:
            CheckpointError: The files have changed.
        """
        if self.spec.local and (stamps := _stamps(Path(self.spec.source))) != self.stamps:
            if self._content is None or _content_hash(Path(self.spec.source), stamps) != self._content:
                raise CheckpointError(
                    f"the files in {self.spec.source!r} have changed since this encoder first looked at them; close() "
                    "it, or make a new one, and embed with the new files what was embedded with the old"
                )
            self.stamps = stamps


def arithmetic(dtype: str, *, origin: Origin, places: Iterable[torch.device], hub: Mapping[str, Any]) -> str:
    """Return what a dtype's name becomes, which for `"auto"` depends on the devices and on the size of the model.

    Args:
        dtype: `"auto"`, `"float32"` or `"bfloat16"`.
        origin: The checkpoint.
        places: Where it runs; where several compute differently, their vectors are mixed, and all are named.
        hub: As for `Origin`.

    Raises:
        CheckpointError: The `config.json` is damaged.
        DownloadError: The `config.json` of a small checkpoint cannot be fetched.
    """
    if dtype != "auto":
        return dtype
    parameters = _parameters(origin.spec, hub)
    found = {resolve_dtype(dtype, device=place, parameters=parameters) for place in places}
    return "+".join(sorted(str(each).removeprefix("torch.") for each in found))


def known_folder(content: str) -> Path | None:
    """Return a folder that this process has seen with some content and that still has it."""
    folder = _folders.get(content)
    if folder is None or not folder.is_dir() or _content_hash(folder, _stamps(folder)) != content:
        return None
    return folder


def _parameters(spec: CheckpointSpec, hub: Mapping[str, Any]) -> int:
    if not spec.local and spec.dimension >= _LARGE:
        return 10**9  # known without the files, which may not be here yet
    folder = Path(spec.source) if spec.local else config_folder(spec.source, str(spec.revision), **hub)[1]
    shapes = tensor_shapes(empty_network(NetworkConfig.from_folder(folder)))
    return sum(map(math.prod, shapes.values()))


def _stamps(folder: Path) -> Stamps:
    """Look at the files that decide a vector; notes, logs and a trainer's state beside them do not."""
    paths = [folder / name for name in (*_SETTINGS, *weight_names(folder))]
    found = [(path.name, path.stat()) for path in paths if path.is_file()]
    return tuple(
        (name, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        for name, status in found
    )


@lru_cache(maxsize=64)
def _content_hash(folder: Path, stamps: Stamps) -> str:
    """Read gigabytes, once for files that stay as they are."""
    digest = hashlib.sha256()
    for name, *_ in stamps:
        path = folder / name
        digest.update(f"{name}\n{path.stat().st_size}\n".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return f"sha256:{digest.hexdigest()}"
