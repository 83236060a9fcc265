"""Where a checkpoint's files are on this machine, fetched from the hub if they are not.

Knows huggingface_hub, its cache and its failures; must not know what the files mean.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypedDict

from typing_extensions import Unpack

from ..checkpoints import CheckpointSpec, is_commit
from ..errors import CheckpointError, DownloadError
from ..files import INDEX, weight_names

logger = logging.getLogger(__name__)

# Data only: no Python, and none of the exports for other runtimes. The weights come last, so where they are, all is.
_CONFIG = "config.json"
_TOKENIZER = "tokenizer.json"
_OPTIONAL = ("tokenizer_config.json", "special_tokens_map.json", INDEX)


class Access(TypedDict):
    """How files are reached.

    Attributes:
        cache_folder: The hub's cache, by default that of huggingface_hub.
        local_files_only: Never touch the network.
        token: Access token for the hub, `True` for the stored one, `None` for whatever is configured.
    """

    cache_folder: str | None
    local_files_only: bool
    token: str | bool | None


def checkpoint_folder(spec: CheckpointSpec, **access: Unpack[Access]) -> Path:
    """Return the folder with a checkpoint's files, downloading what is missing.

    Args:
        spec: The checkpoint; a local one is returned as it is.
        **access: See `Access`.

    Returns:
        The folder; of a repository on the hub, it is named as the commit.

    Raises:
        CheckpointError: The repository holds no such files, or the index of its weights is damaged.
        DownloadError: The hub, the repository or the revision cannot be reached.
    """
    if spec.local:
        return Path(spec.source)
    hub = _Hub(spec.source, **access)
    commit = hub.commit(spec.revision or "main")
    # A commit never changes, so a complete copy of it needs no word with the hub.
    folder = hub.cached(commit)
    if folder is None or not _is_complete(folder):
        hub.ask(commit)
        for file in _OPTIONAL:
            with suppress(CheckpointError):  # the repository lacks it
                hub.get(file, commit)
        hub.get(_TOKENIZER, commit)
        folder = hub.get(_CONFIG, commit).parent
        for file in weight_names(folder):
            hub.get(file, commit)
    return folder


def config_folder(source: str, revision: str, **access: Unpack[Access]) -> tuple[str, Path]:
    """Fetch the `config.json` of a repository, a few kilobytes, and nothing else.

    Args:
        source: Hub id.
        revision: Commit, tag or branch.
        **access: See `Access`.

    Returns:
        The commit that the revision means now, or meant when the copy in the cache was made if the hub cannot be
        reached; and the folder that holds the file.

    Raises:
        CheckpointError: The repository has no such file.
        DownloadError: The hub, the repository or the revision cannot be reached.
    """
    hub = _Hub(source, **access)
    commit = hub.commit(revision)
    folder = hub.cached(commit)
    if folder is None:
        hub.ask(commit)
        folder = hub.get(_CONFIG, commit).parent
    return commit, folder


def commit_of(spec: CheckpointSpec, **access: Unpack[Access]) -> str:
    """Return the commit by which a checkpoint on the hub is identified; loads nothing.

    A pinned checkpoint needs no network. Of a branch the hub is asked, by one request without a body, or the cache
    where the hub cannot be reached. Branches move: after identifying, load that commit.

    Args:
        spec: The checkpoint, not a local one.
        **access: See `Access`.

    Raises:
        CheckpointError: The repository is empty.
        DownloadError: The hub, the repository or the revision cannot be reached.
    """
    return _Hub(spec.source, **access).commit(spec.revision or "main")


def cached_tokenizer(spec: CheckpointSpec) -> Path | None:
    """Return the folder with a checkpoint's tokenizer where it is on this machine; asks nobody.

    Args:
        spec: The checkpoint.
    """
    if spec.local:
        return Path(spec.source)
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(spec.source, _TOKENIZER, revision=spec.revision)
    return Path(path).parent if isinstance(path, str) else None


class _Hub:
    """One repository, on the hub and in the cache. Every request has huggingface_hub's own limit of time."""

    def __init__(self, source: str, cache_folder: str | None, local_files_only: bool, token: str | bool | None) -> None:
        # Here, because a local folder needs none of it, and it takes half a second.
        from huggingface_hub import constants

        self._source, self._token, self._local = source, token, local_files_only
        self._cache = Path(cache_folder or constants.HF_HUB_CACHE).expanduser()
        self._seconds = constants.HF_HUB_ETAG_TIMEOUT
        self._endpoint = constants.ENDPOINT

    def commit(self, revision: str) -> str:
        """Return the commit that a revision means: on the hub, in the cache where the hub cannot be reached."""
        if is_commit(revision):
            return revision
        from huggingface_hub.errors import RevisionNotFoundError

        folder = self.cached(revision)
        remembered = None if folder is None else folder.name
        if self._local and remembered is not None:
            return remembered
        try:
            found = self.ask(revision)
            # By the branch's name, so that the cache remembers what it meant.
            return found if found and found == remembered else self.get(_CONFIG, revision).parent.name
        except DownloadError as error:
            if remembered is None or isinstance(error.__cause__, RevisionNotFoundError):
                raise
            logger.info("%s; going on with commit %s from the cache", error, remembered)
            return remembered

    def ask(self, revision: str) -> str | None:
        """Ask the hub for the commit that a revision means, once: a download asks a silent hub again, for minutes."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        if self._local:
            raise DownloadError(
                f"{self._source} at revision {revision} is not in the local cache and local_files_only=True; download "
                "it once with it off"
            )
        with self._translated(_CONFIG, revision):
            url = hf_hub_url(self._source, _CONFIG, revision=revision)
            return get_hf_file_metadata(url, timeout=self._seconds, token=self._token).commit_hash

    def cached(self, commit: str) -> Path | None:
        """Return the folder of a commit in the cache, if its `config.json` is there."""
        from huggingface_hub import try_to_load_from_cache

        with self._translated(_CONFIG, commit):
            path = try_to_load_from_cache(self._source, _CONFIG, cache_dir=self._cache, revision=commit)
        return Path(path).parent if isinstance(path, str) else None

    def get(self, file: str, revision: str) -> Path:
        """Return a file, downloading it if it is not in the cache."""
        from huggingface_hub import hf_hub_download

        with self._translated(file, revision):
            return Path(
                hf_hub_download(
                    self._source,
                    file,
                    revision=revision,
                    cache_dir=self._cache,
                    token=self._token,
                    etag_timeout=self._seconds,
                )
            )

    @contextmanager
    def _translated(self, file: str, revision: str) -> Iterator[None]:
        from huggingface_hub import errors as hub

        try:
            yield
        # HTTPError is httpx's, whose name varies.
        except (OSError, hub.HTTPError, hub.HFValidationError) as error:  # type: ignore[attr-defined]
            raise self._error(error, file, f"{self._source} at revision {revision}") from error

    def _error(self, error: Exception, file: str, where: str) -> CheckpointError | DownloadError:
        from huggingface_hub import errors as hub

        status = error.response.status_code if isinstance(error, hub.HfHubHTTPError) else None
        if isinstance(error, hub.RevisionNotFoundError):
            return DownloadError(f"there is no {where} on the hub; leave revision out for the known-good one")
        closed = f"the hub does not give out {where}: pass token= if it is private or gated"
        if isinstance(error, hub.GatedRepoError):
            return DownloadError(f"{closed}; ask for access at {self._endpoint}/{self._source}")
        if isinstance(error, (hub.RepositoryNotFoundError, hub.HFValidationError)) or status in (401, 403):
            return DownloadError(f"{closed}, and check the spelling, in which upper and lower case differ")
        if isinstance(error, hub.LocalTokenNotFoundError):
            return DownloadError(
                "token=True stands for the token of `hf auth login`, and there is none; log in, or pass the token"
            )
        if isinstance(error, hub.EntryNotFoundError) and not isinstance(error, hub.LocalEntryNotFoundError):
            return CheckpointError(f"{where} has no {file} on the hub; a pplx-embed checkpoint has one")
        if isinstance(error, OSError) and error.errno is not None and not isinstance(error, ConnectionError):
            return DownloadError(
                f"{where} cannot be kept in the cache folder {str(self._cache)!r} ({error}); choose another with "
                "cache_folder= or the environment variable HF_HOME, or make room"
            )
        cause = error.__cause__ if isinstance(error, hub.LocalEntryNotFoundError) and error.__cause__ else error
        found = f"{type(cause).__name__}: {cause}"
        if "Timeout" in type(cause).__name__:
            found = (
                f"{self._endpoint} did not answer in {self._seconds} seconds; the environment variable "
                "HF_HUB_ETAG_TIMEOUT sets how many"
            )
        return DownloadError(
            f"{where} is neither in the local cache nor can the hub be reached; check the network, or download the "
            f"repository elsewhere and give the folder's path as the model ({found})"
        )


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (_CONFIG, _TOKENIZER, *weight_names(folder)))
