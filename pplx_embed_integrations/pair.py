"""Two embedders that agree on form, one for queries and one for documents, wherever each of them is.

Knows names, servers and embedders, and makes each side when it is first used; must not know what becomes of vectors,
nor import the backbone before a vector is wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from .checkpoints import CheckpointSpec, resolve, resolve_pair
from .embedder import Embedder, as_embedder, in_form
from .errors import CheckpointError, InputError
from .flow import in_thread
from .inputs import check_positive
from .options import BiEncoderOptions, HubOptions, PairOptions, SideOptions
from .schema import options_of, values_of
from .vectors import check_dimensions

if TYPE_CHECKING:
    from .backbone.encoder import PplxEncoder
    from .options import Model
    from .remote import RemoteEncoder
    from .remote.usage import Usage


class Pair(BiEncoderOptions):
    """What a bi-encoder is besides its way from texts to vectors; see `PplxBiEncoder`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        query, document = models_of(self.model, self.query_model, self.document_model)
        self._remote: dict[str, RemoteEncoder] = {}
        self._query = self._side("query", query)
        self._document = self._side("document", document)
        specs = [side for side in (self._query, self._document) if isinstance(side, CheckpointSpec)]
        _refuse_options(self, specs)
        self.dimension = _common_dimension(self._query, self._document, self.dimensions)
        if self.max_tokens is not None:
            longest = min(spec.max_tokens for spec in specs)
            self.max_tokens = check_positive("max_tokens", self.max_tokens, largest=longest)
        self._encoders: dict[tuple[str, str | None], PplxEncoder] = {}

    def _side(self, side: str, model: Model) -> CheckpointSpec | Embedder:
        name, revision = f"{side}_model", getattr(self, f"{side}_revision")
        embedder = as_embedder(model, name=name)
        if embedder is None and self.base_url is not None:
            embedder = self._on_server(name, cast("str | Path", model))
        if embedder is None:
            fetch = partial(_fetch, **values_of(self, HubOptions))
            return resolve(cast("str | Path", model), revision=revision, fetch=fetch)
        if revision is not None:
            raise InputError(
                f"{side}_revision={revision!r} is for a checkpoint, and {name} is an embedder; leave it out"
                if self.base_url is None
                else f"{side}_revision={revision!r} is for a checkpoint in this process; leave it out"
            )
        return embedder

    def _on_server(self, name: str, model: str | Path) -> RemoteEncoder:
        from .remote import RemoteEncoder

        if isinstance(model, Path):
            raise InputError(f"{name}={model!r} is a folder of this machine, and base_url={self.base_url!r} another")
        if model not in self._remote:
            self._remote[model] = RemoteEncoder(model, base_url=str(self.base_url), api_key=self.api_key)
        return self._remote[model]

    def __repr__(self) -> str:
        return f"PplxBiEncoder(query_model={_called(self._query)}, document_model={_called(self._document)})"

    @property
    def options(self) -> dict[str, Any]:
        """The options that decide a vector, as they were given; what they came to mean is in `identity`."""
        return {
            **values_of(self, PairOptions, decisive=True),
            **_source("query", self._query),
            **_source("document", self._document),
            "dimensions": self.dimension,
        }

    @property
    def contextual(self) -> bool:
        """Whether documents can be embedded with their chunks in context."""
        return self._document.contextual

    @property
    def symmetric(self) -> bool:
        """Whether a text is known to have one vector, as a query and as a document."""
        one = self._query
        spec = one if isinstance(one, CheckpointSpec) else getattr(one, "checkpoint", None)
        return isinstance(spec, CheckpointSpec) and one == self._document and spec.family.prompts is None

    @cached_property
    def query(self) -> PplxEncoder | Any:  # Any: to type checkers, too, a given embedder is what it is
        """What embeds queries: the embedder that was given, else a `PplxEncoder`, which is made at first use."""
        return self._made(self._query)

    @cached_property
    def document(self) -> PplxEncoder | Any:
        """What embeds documents, the same object where both sides are one checkpoint."""
        return self._made(self._document)

    @property
    def usage(self) -> Usage:
        """Tokens, and cost where a server tells it, of what servers have embedded for both sides so far.

        What is embedded in this process is not counted.

        Example:
            >>> from pplx_embed_integrations import PplxBiEncoder
            >>> PplxBiEncoder("0.6b", base_url="http://gpu:8080").usage
            Usage(prompt_tokens=0, total_tokens=0, input_cost=0.0, total_cost=0.0, currency=None)
        """
        from .remote.usage import Usage

        sides = [self._query, *([] if self._query is self._document else [self._document])]
        return sum((found for side in sides if isinstance(found := getattr(side, "usage", None), Usage)), Usage())

    def close(self) -> None:
        """Release what was made or opened for the sides."""
        for encoder in list(self._encoders.values()):
            encoder.close()
        for remote in self._remote.values():
            remote.close()

    def _made(self, side: CheckpointSpec | Embedder) -> PplxEncoder | Any:
        if not isinstance(side, CheckpointSpec):
            return side
        from .backbone.encoder import PplxEncoder

        name = Path(side.source) if side.local else side.source
        made = PplxEncoder(name, revision=side.revision, **values_of(self, SideOptions))
        return self._encoders.setdefault((side.source, side.revision), made)  # atomic: threads that race get one

    async def _aside(self, side: Literal["query", "document"]) -> Embedder:
        """Return a side; the first imports torch, which takes seconds."""
        return cast("Embedder", getattr(self, side) if side in vars(self) else await in_thread(getattr, self, side))

    def hold(self, other: Pair) -> None:
        """Keep what a pair with the same checkpoints has loaded, for a copy with other options; loads nothing."""
        for spec in (self._query, self._document):
            if not isinstance(spec, CheckpointSpec):
                continue
            if (loaded := other._encoders.get((spec.source, spec.revision))) is not None:
                self._made(spec).hold(loaded)

    def identity(self) -> str:
        """Return everything that decides the vectors of documents in native form; see `PplxEncoder.identity`.

        What is stored under an equal identity can be compared, and need not be embedded again. The query side has no
        part in it: that is `pair.query.identity()`.

        Raises:
            CheckpointError: The files have changed since they were loaded, or are damaged.
            DownloadError: A branch on the hub is followed, and neither the hub nor the cache says where it stands.
            InputError: `dtype` is `"auto"` and the machine has no such device.
        """
        return in_form(self.document.identity(), dimensions=self.dimension, quantization=self.quantization)

    def check_documents(self, documents: Sequence[Sequence[str]], *, names: Sequence[str] | None = None) -> None:
        """Raise one error for everything that the document side would refuse; see `PplxEncoder.check_documents`.

        Args:
            documents: Documents, each a list of its chunks.
            names: How the error calls each document, by default `document 0` and so on.

        Raises:
            InputError: Chunks are empty, too long or not Unicode.
            InputTypeError: `documents` is no list of lists of strings.
            NotContextualError: The document side was not trained for this.
        """
        self.document.check_documents(documents, names=names)


def _fetch(source: str, revision: str, **hub: Any) -> tuple[str, Path]:
    from .backbone.hub import config_folder

    return config_folder(source, revision, **hub)


def models_of(model: Model, query_model: Model | None, document_model: Model | None) -> tuple[Model, Model]:
    """Return what stands for queries and for documents.

    Raises:
        CheckpointError: Nothing has the name that is wanted.
        InputTypeError: `model` is wanted, and is neither a name, a path nor an embedder.
    """
    if query_model is not None and document_model is not None:
        return query_model, document_model
    embedder = as_embedder(model, name="model")
    query, document = resolve_pair(cast("str | Path", model)) if embedder is None else (embedder, embedder)
    return query if query_model is None else query_model, document if document_model is None else document_model


def _refuse_options(pair: Pair, loaded: list[CheckpointSpec]) -> None:
    """Refuse what would be without effect: options of checkpoints, where there are none, and of a server."""
    given = [name for name, each in options_of(SideOptions).items() if getattr(pair, name) != each.default]
    if given and not loaded:
        where = "both models are embedders" if pair.base_url is None else f"the models run at {pair.base_url}"
        raise InputError(
            f"without a checkpoint to load there is no use for {', '.join(given)}; {where}, which have options of "
            "their own"
        )
    if pair.base_url is None and pair.api_key is not None:
        raise InputError('api_key is for a server; give its address, too: base_url="http://gpu:8080" or "perplexity"')
    if pair.base_url is not None and not pair._remote:
        raise InputError(f"there is no use for base_url={pair.base_url!r}: both models are embedders; leave it out")


def _called(side: CheckpointSpec | Embedder) -> str:
    return repr(side.name if isinstance(side, CheckpointSpec) else side)


def _source(name: str, side: CheckpointSpec | Embedder) -> dict[str, Any]:
    if isinstance(side, CheckpointSpec):
        return {f"{name}_model": side.source, f"{name}_revision": side.revision}
    return {f"{name}_model": side, f"{name}_revision": None}


def _common_dimension(
    query: CheckpointSpec | Embedder, document: CheckpointSpec | Embedder, dimensions: int | None
) -> int:
    if query.dimension != document.dimension:
        names = [
            side.name if isinstance(side, CheckpointSpec) else f"{name}_model={side!r}"
            for name, side in (("query", query), ("document", document))
        ]
        raise CheckpointError(
            f"{names[0]} gives {query.dimension} dimensions and {names[1]} {document.dimension}: their vectors cannot "
            "be compared; use two models of one size, or the same one on both sides"
        )
    return check_dimensions(
        dimensions, smallest=max(query.min_dimension, document.min_dimension), largest=query.dimension
    )
