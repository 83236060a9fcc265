"""Where a checkpoint's files are on this machine, fetched from the hub if they are not.

Knows huggingface_hub, its cache and its failures; must not know what the files mean.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ..checkpoints import CheckpointSpec
from ..errors import DownloadError

__all__ = ["checkpoint_folder"]

# Data only: no Python, and none of the exports for other runtimes that lie in subfolders.
_FILES = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
]


def checkpoint_folder(
    spec: CheckpointSpec, *, cache_folder: str | None, local_files_only: bool, token: str | bool | None
) -> Path:
    """Return the folder with a checkpoint's files, downloading what is missing.

    Args:
        spec: The checkpoint; a local one is returned as it is.
        cache_folder: The hub's cache, by default that of huggingface_hub.
        local_files_only: Never touch the network.
        token: Access token for the hub, `True` for the stored one, `None` for whatever is configured.

    Returns:
        The folder.

    Raises:
        DownloadError: The hub, the repository or the revision cannot be reached.
    """
    if spec.local:
        return Path(spec.source)
    # Here, because a local folder needs none of it, and it takes half a second.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's, whose name varies
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{spec.source} at revision {spec.revision}"
    pinned = re.fullmatch(r"[0-9a-f]{40}", spec.revision or "") is not None
    # A commit never changes, so a complete copy of it needs no word with the hub.
    for offline in [True, False] if pinned and not local_files_only else [local_files_only]:
        try:
            folder = snapshot_download(
                spec.source,
                revision=spec.revision,
                cache_dir=cache_folder,
                local_files_only=offline,
                token=token,
                allow_patterns=_FILES,
            )
        except LocalEntryNotFoundError as error:
            if offline and not local_files_only:
                continue
            raise DownloadError(_unreachable(where, local_files_only)) from error
        except RevisionNotFoundError as error:
            raise DownloadError(f"there is no {where} on the hub; leave revision out for the known-good one") from error
        except (RepositoryNotFoundError, HFValidationError) as error:  # a gated repository is one of the former
            raise DownloadError(f"the hub does not give out {where}: pass token= if it is private or gated") from error
        except (OSError, HTTPError) as error:
            raise DownloadError(f"{_unreachable(where, local_files_only)} ({type(error).__name__}: {error})") from error
        # Of a folder in the cache the hub's library may know only that it is there.
        if _is_complete(Path(folder)):
            return Path(folder)
    raise DownloadError(_unreachable(where, local_files_only))


def _is_complete(folder: Path) -> bool:
    names = ["config.json", "tokenizer.json"]
    index = folder / "model.safetensors.index.json"
    if index.is_file() and not (folder / "model.safetensors").is_file():
        names += json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    else:
        names.append("model.safetensors")
    return all((folder / name).is_file() for name in {*names})


def _unreachable(where: str, local_files_only: bool) -> str:
    if local_files_only:
        return f"{where} is not in the local cache and local_files_only=True; download it once with it off"
    return (
        f"{where} is neither in the local cache nor can the hub be reached; check the network, or download the "
        "repository elsewhere and give the folder's path as the model"
    )
