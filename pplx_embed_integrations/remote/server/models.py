"""The models of a server: each an embedder under a name, and what else of it a server can use.

Knows embedders and the names by which clients ask for them; must not know requests.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from ...checkpoints import short_name
from ...embedder import Embedder, as_embedder
from ...errors import InputError, InputTypeError
from ...flow import in_own_thread, in_thread
from ...inputs import Role, check_text
from ...vectors import Quantization, Vectors
from ..protocol import Limits, ModelCard, fingerprint
from .gathering import Gathering
from .refusals import RefusedError

_AT_ONCE = 2000
"""Characters that are counted without a thread, which would take longer to get there."""
_SHOWN = 100


@dataclass(frozen=True)
class TextForm:
    """What decides the vectors of texts besides the texts.

    Attributes:
        role: What they are.
        quantization: Form of the values.
        dimensions: Width.
        normalize: Whether they have unit length.
    """

    role: Role | None
    quantization: Quantization | None
    dimensions: int | None
    normalize: bool


class Model:
    """An embedder under a name.

    Args:
        name: How clients call it.
        embedder: What gives the vectors. What `PplxEncoder` has beyond an `Embedder` is used where it is there: `load`,
            `count_tokens`, `max_tokens`, `truncate`, `batches`.

    Raises:
        InputTypeError: It is no embedder.
    """

    def __init__(self, name: str, embedder: Embedder) -> None:
        self.name = check_text(name, name="a model's name")
        if as_embedder(embedder, name=f"the model {name!r}") is None:
            raise InputTypeError(f"the model {name!r} must be an embedder such as PplxEncoder, not {embedder!r}")
        self.embedder = embedder
        self._count = cast("Callable[[Sequence[str]], list[int]] | None", getattr(embedder, "count_tokens", None))
        cut = bool(getattr(embedder, "truncate", False))
        self._identity = ""
        self._gathering: Gathering[TextForm] = Gathering(self._encode)
        self.longest: int | None = None if cut else getattr(embedder, "max_tokens", None)

    async def load(self) -> None:
        """Load it, where it can be, and find out its identity, for which a folder is read as a whole."""
        load: Callable[[], object] = getattr(self.embedder, "load", lambda: None)
        await asyncio.wrap_future(in_own_thread(load))
        self._identity = await asyncio.wrap_future(in_own_thread(self.embedder.identity))

    @property
    def fingerprint(self) -> str:
        """What answers say of it."""
        return fingerprint(self._identity)

    async def count_tokens(self, texts: list[str]) -> list[int]:
        """Return how many tokens each text has; where the embedder does not tell, a safe estimate."""
        if self._count is None:
            return [len(text.encode("utf-8", "surrogatepass")) for text in texts]
        if sum(map(len, texts)) <= _AT_ONCE:
            return self._count(texts)
        return await in_thread(self._count, texts)

    async def encode(self, texts: list[str], form: TextForm) -> Vectors:
        """Embed texts, short requests together."""
        return await self._gathering.embed(texts, form)

    async def _encode(self, texts: list[str], form: TextForm) -> Vectors:
        return await self.embedder.aencode(
            texts,
            role=form.role,
            quantization=form.quantization,
            dimensions=form.dimensions,
            normalize=form.normalize,
        )

    def batches(self) -> tuple[int, int, int]:
        """Return how many forward passes there have been, and how many sequences and tokens in them."""
        read: Callable[[], tuple[int, int, int]] = getattr(self.embedder, "batches", lambda: (0, 0, 0))
        return read()

    def card(self, limits: Limits) -> ModelCard:
        """Return what clients are told of it."""
        return {
            "object": "model",
            "id": self.name,
            "created": 0,
            "owned_by": "pplx-embed-integrations",
            "dimension": self.embedder.dimension,
            "min_dimension": self.embedder.min_dimension,
            "max_tokens": getattr(self.embedder, "max_tokens", None),
            "contextual": self.embedder.contextual,
            "identity": self._identity,
            "limits": asdict(limits),
        }


class Models:
    """The models of a server by their names; in any letter case, with or without `pplx-embed-`.

    Args:
        embedders: By name.

    Raises:
        InputError: There are none, or two names are the same but for that.
    """

    def __init__(self, embedders: Mapping[str, Embedder]) -> None:
        self.all = [Model(name, embedder) for name, embedder in embedders.items()]
        if not self.all:
            raise InputError("a server needs a model; give one, by its name")
        self._found = {short_name(each.name): each for each in self.all}
        if len(self._found) < len(self.all):
            raise InputError(f"of the names {', '.join(embedders)} two are the same but for case and prefix")

    def find(self, name: str) -> Model:
        """Return the model that a request means; a name is compared with those there are, and never opened as a path.

        Raises:
            RefusedError: 404, there is none.
        """
        model = self._found.get(short_name(name))
        if model is None:
            shown = name if len(name) <= _SHOWN else f"{name[:_SHOWN]}…"
            nearest = difflib.get_close_matches(short_name(shown), self._found, n=1, cutoff=0.5)
            hint = f" (did you mean {self._found[nearest[0]].name!r}?)" if nearest else ""
            there = ", ".join(each.name for each in self.all)
            message = f"there is no model {shown!r} here{hint}; there are: {there}"
            raise RefusedError(404, message, kind="not_found_error", code="model_not_found", param="model")
        return model

    async def load(self) -> None:
        """Load them one after the other, so that memory is not needed twice over."""
        for each in self.all:
            await each.load()

    def close(self) -> None:
        """Release what they hold."""
        for each in self.all:
            each.embedder.close()

    def cards(self, limits: Limits) -> dict[str, Any]:
        """Return the answer to `GET /v1/models`."""
        return {"object": "list", "data": [each.card(limits) for each in self.all]}
