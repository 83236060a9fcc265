"""What a server has: which API it speaks, and what it says of a model.

Knows the answers that tell servers from each other; must not know how vectors are asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..checkpoints import CheckpointSpec, list_checkpoints, short_name
from ..embedder import identify
from ..errors import CheckpointError, ServerError
from ..families import PPLX_EMBED
from .protocol import EMBEDDINGS, MODELS, PERPLEXITY_LIMITS, Limits, field_of, fingerprint
from .transport import RefusedError, Transport

_AT_A_TIME = 32_768
"""Tokens in a request to a server that may compute on a processor: they are done again when its connection is lost."""
_OPENAI_TEXTS = 32
"""What text-embeddings-inference takes at a time unless told otherwise; other servers take more."""
_NO_SUCH_ROUTE = (404, 405, 501)


@dataclass(frozen=True)
class Served:
    """A model as a server has it.

    Attributes:
        name: Its name in requests.
        api: What the server speaks: Perplexity's API, that of this package's server, or OpenAI's alone.
        dimension: Width of the full vector.
        min_dimension: Smallest width to which a vector may be cut.
        max_tokens: Longest text or window; None where nobody says.
        truncates: Whether it cuts a text that is longer.
        contextual: Whether it embeds the chunks of a document together.
        identity: As of `Embedder.identity`.
        limits: What a request may hold.
        longest: Tokens of a document that may be sent whole.
    """

    name: str
    api: Literal["perplexity", "pplx-embed", "openai"]
    dimension: int
    min_dimension: int
    max_tokens: int | None
    contextual: bool
    identity: str
    limits: Limits
    longest: int
    truncates: bool = False

    @property
    def longest_text(self) -> int | None:
        """Tokens above which a text is refused; None where it is not, or nobody says."""
        return None if self.truncates else self.max_tokens


def known(name: str) -> CheckpointSpec | None:
    """Return the checkpoint of a known name, None for any other; folders and the hub are not looked at.

    Example:
        >>> known("perplexity-ai/pplx-embed-v1-0.6b").name, known("ours")
        ('v1-0.6b', None)
    """
    return next((spec for spec in list_checkpoints() if spec.name == short_name(name)), None)


def hosted(name: str, spec: CheckpointSpec | None) -> Served:
    """Return a model as Perplexity has it, which asks nobody.

    Raises:
        CheckpointError: Perplexity does not offer it.

    Example:
        >>> hosted("v1-0.6b", known("v1-0.6b")).name
        'pplx-embed-v1-0.6b'
    """
    if spec is None or spec.local:
        there = ", ".join(each.name for each in list_checkpoints() if not each.local)
        raise CheckpointError(f"Perplexity's API has no model {name!r}; it has {there}")
    wire_name = f"pplx-embed-{spec.name}"
    return Served(
        name=wire_name,
        api="perplexity",
        dimension=spec.dimension,
        min_dimension=spec.min_dimension,
        max_tokens=spec.max_tokens,
        contextual=spec.contextual,
        # Which weights these are at the moment, and what they are computed in, is known to Perplexity alone.
        identity=identify(f"{wire_name}@api.perplexity.ai", max_tokens=spec.max_tokens),
        limits=PERPLEXITY_LIMITS,
        longest=spec.max_tokens,
    )


async def ask(transport: Transport, name: str, spec: CheckpointSpec | None) -> Served:
    """Ask a server what it has.

    Raises:
        CheckpointError: It does not have the model, or another one of its name.
        ServerError: It cannot be asked, or says nothing that makes sense.
    """
    try:
        answer = await transport.get(MODELS)
    except RefusedError as error:
        if error.status not in _NO_SUCH_ROUTE:
            raise
        answer = None  # text-embeddings-inference has no such route
    listed = field_of(answer, "data")
    cards = [card for card in listed if isinstance(field_of(card, "id"), str)] if isinstance(listed, list) else []
    card = next((card for card in cards if card["id"] == name), None) or next(
        (card for card in cards if short_name(card["id"]) == short_name(name)), None
    )
    if any(isinstance(field_of(each, "identity"), str) for each in cards):
        if card is None:
            there = ", ".join(each["id"] for each in cards)
            raise CheckpointError(f"{transport.url} has no model {name!r}; it has {there}")
        return _ours(card, transport.url, spec)
    return await _openai(transport, name if card is None else card["id"], spec)


def _ours(card: dict[str, Any], url: str, spec: CheckpointSpec | None) -> Served:
    try:
        identity = json.loads(card["identity"])
        identity["checkpoint"]
        limits = Limits(**card["limits"])
        served = Served(
            name=card["id"],
            api="pplx-embed",
            dimension=int(card["dimension"]),
            min_dimension=int(card["min_dimension"]),
            max_tokens=None if card["max_tokens"] is None else int(card["max_tokens"]),
            contextual=bool(card["contextual"]),
            identity=card["identity"],
            limits=replace(limits, tokens=min(int(limits.tokens), _AT_A_TIME)),
            longest=int(limits.text_tokens or limits.tokens),
            truncates=bool(identity.get("truncate")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ServerError(
            f"{url} describes its model {card['id']!r} in a way that is not understood ({type(error).__name__}: "
            f"{error}); is it a server of another version?"
        ) from error
    if spec is not None and (served.dimension, served.contextual) != (spec.dimension, spec.contextual):
        raise CheckpointError(
            f"{url} calls a model {served.name!r} that is another one: it gives {served.dimension} dimensions, not "
            f"{spec.dimension}" + ("" if served.contextual == spec.contextual else ", and differs in context")
        )
    return served


async def _openai(transport: Transport, name: str, spec: CheckpointSpec | None) -> Served:
    if spec is None:
        answer = await transport.post(EMBEDDINGS, {"input": ["width"], "model": name, "encoding_format": "float"})
        data = field_of(answer, "data")
        vector = field_of(data[0], "embedding") if isinstance(data, list) and data else None
        if not isinstance(vector, list) or not vector:
            raise ServerError(f"{transport.url} gives no vectors of numbers for model {name!r}")
        dimension, least = len(vector), PPLX_EMBED.min_dimension(len(vector))
    else:
        dimension, least = spec.dimension, spec.min_dimension
    return Served(
        name=name,
        api="openai",
        dimension=dimension,
        min_dimension=least,
        max_tokens=None if spec is None else spec.max_tokens,
        contextual=False,
        identity=identify(name if spec is None else spec.source, api="openai"),
        limits=Limits(texts=_OPENAI_TEXTS, chunks=_OPENAI_TEXTS, tokens=_AT_A_TIME),
        longest=_AT_A_TIME,
    )


def check_answered(answer: object, served: Served, url: str) -> None:
    """Refuse vectors of another model than the one that the server had when it was first asked.

    Raises:
        CheckpointError: The answer says so.
    """
    if served.api == "pplx-embed":
        said = field_of(answer, "system_fingerprint")
        if said is not None and said != fingerprint(served.identity):
            raise CheckpointError(
                f"{url} has had another model as {served.name!r} since it was first asked, whose vectors cannot be "
                "compared with those before; nothing of this call is kept. Bring the former model back, or embed anew "
                "what was embedded with it"
            )
        return
    said = field_of(answer, "model")
    # Perplexity has the models of its names; a path says nothing of what lies there.
    unknown = not isinstance(said, str) or not said or said.startswith(("/", ".", "\\"))
    if served.api == "openai" and not unknown and short_name(said) != short_name(served.name):
        raise CheckpointError(f"{url} has the model {said!r}, and {served.name!r} is asked for; check base_url")
