"""What goes over the wire: the paths, requests, answers, errors and limits of Perplexity's embeddings API.

Knows the shapes of JSON; must not know vectors, nor what sends them: no HTTP client, no server, no model.

Read from the vendor's SDK (`perplexityai` 0.46) and API reference in November 2026.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from typing_extensions import NotRequired, Required, TypedDict

from ..inputs import Role

PERPLEXITY_URL = "https://api.perplexity.ai"
"""The hosted API."""
KEY_VARIABLES = ("PERPLEXITY_API_KEY", "PPLX_API_KEY")
"""Where the vendor's SDK, and LangChain's package for it, look for the hosted API's key."""

EMBEDDINGS = "/v1/embeddings"
CONTEXTUALIZED = "/v1/contextualizedembeddings"
MODELS = "/v1/models"
HEALTH = "/health"
METRICS = "/metrics"

EncodingFormat = Literal["base64_int8", "base64_binary", "float", "base64", "base64_float32"]
"""How a vector is written in an answer; `encoding.FORMS` says what each holds."""

_SHOWN = 500
"""Characters of a server's message that an error shows."""


@dataclass(frozen=True)
class Limits:
    """What a request may hold at most.

    Attributes:
        texts: Texts, or documents.
        chunks: Chunks of all documents together.
        tokens: Tokens of all of them together.
        text_tokens: Tokens of a text or of a document; None where that is left to the model, which reads a longer
            document in windows.
    """

    texts: int
    chunks: int
    tokens: int
    text_tokens: int | None = None


PERPLEXITY_LIMITS = Limits(texts=512, chunks=16_000, tokens=120_000, text_tokens=32_768)
"""Of the hosted API, as published in November 2026."""


class EmbeddingsRequest(TypedDict, total=False):
    """Body of a request for texts, each by itself.

    Attributes:
        input: One or several texts, none empty.
        model: For example `pplx-embed-v1-0.6b`.
        dimensions: Width to which vectors are cut; all of it by default.
        encoding_format: By default `base64_int8`.
        input_type: For models that read queries and documents differently.
        user: OpenAI's name for who asks; it changes nothing.
    """

    input: Required[str | list[str]]
    model: Required[str]
    dimensions: NotRequired[int | None]
    encoding_format: NotRequired[EncodingFormat | None]
    input_type: NotRequired[Role | None]
    user: NotRequired[str | None]


class ContextualizedRequest(TypedDict, total=False):
    """Body of a request for documents, each a list of its chunks in reading order; else as `EmbeddingsRequest`."""

    input: Required[list[list[str]]]
    model: Required[str]
    dimensions: NotRequired[int | None]
    encoding_format: NotRequired[EncodingFormat | None]
    input_type: NotRequired[Role | None]
    user: NotRequired[str | None]


class Item(TypedDict):
    """A vector in an answer: its place among what was asked, and itself."""

    object: Literal["embedding"]
    index: int
    embedding: str | list[float]


class ContextualizedItem(TypedDict):
    """A document in an answer: its place, and its chunks' vectors."""

    object: NotRequired[str]
    index: int
    data: list[Item]


class Answer(TypedDict):
    """The answer to an `EmbeddingsRequest`."""

    object: Literal["list"]
    model: str
    system_fingerprint: NotRequired[str]
    data: list[Item]
    usage: dict[str, Any]


class ContextualizedAnswer(TypedDict):
    """The answer to a `ContextualizedRequest`."""

    object: Literal["list"]
    model: str
    system_fingerprint: NotRequired[str]
    data: list[ContextualizedItem]
    usage: dict[str, Any]


class ModelCard(TypedDict):
    """What a server of this package says of a model; other servers give `id` and little else.

    Attributes:
        object: What it is.
        id: Its name in requests.
        created: OpenAI's field; 0.
        owned_by: OpenAI's field.
        dimension: Width of the full vector.
        min_dimension: Smallest width to which a vector may be cut.
        max_tokens: Longest text or chunk; None where the source of vectors does not say.
        contextual: Whether it embeds the chunks of a document together.
        identity: Everything besides the text that decides a full vector; see `embedder.identify`.
        limits: The fields of `Limits`, for a request.
    """

    object: Literal["model"]
    id: str
    created: int
    owned_by: str
    dimension: int
    min_dimension: int
    max_tokens: int | None
    contextual: bool
    identity: str
    limits: dict[str, int | None]


class ModelsAnswer(TypedDict):
    """The answer to `GET /v1/models`."""

    object: Literal["list"]
    data: list[ModelCard]


class ErrorAnswer(TypedDict):
    """An error as clients of both APIs read it: OpenAI's form and, where a request is at fault, Perplexity's too.

    Attributes:
        error: `message`, `type`, `param` and `code`.
        detail: What is wrong where: `loc`, `msg` and `type` of each.
    """

    error: dict[str, str | None]
    detail: NotRequired[list[dict[str, Any]]]


def error_answer(
    message: str,
    *,
    kind: str,
    code: str | None = None,
    param: str | None = None,
    detail: list[dict[str, Any]] | None = None,
) -> ErrorAnswer:
    """Return the body of an error.

    Example:
        >>> error_answer("there is no such model", kind="not_found_error", code="model_not_found")["error"]["code"]
        'model_not_found'
    """
    answer: ErrorAnswer = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    if detail is not None:
        answer["detail"] = detail
    return answer


def fingerprint(identity: str) -> str:
    """Return what an answer of this package's server says of the model that made it, in OpenAI's `system_fingerprint`.

    A client that knows the identity notices a server that was started again with another model under the same name.

    Example:
        >>> fingerprint("{}")
        'fp_44136fa355b3'
    """
    return f"fp_{hashlib.sha256(identity.encode()).hexdigest()[:12]}"


def message_of(body: object) -> str:
    """Return what a server's error says, in whichever of the forms that are about; empty if it says nothing.

    What was sent is not repeated, as some servers do.

    Example:
        >>> message_of({"detail": [{"loc": ["body", "input", 3], "msg": "must not be empty", "type": "value_error"}]})
        'input.3: must not be empty'
        >>> message_of({"error": {"message": "wrong key"}}), message_of({"error": "overloaded"}), message_of("oops")
        ('wrong key', 'overloaded', 'oops')
    """
    if isinstance(body, list):
        return _shortened("; ".join(filter(None, map(_problem, body))))
    if isinstance(body, Mapping):
        parts = (message_of(body[name]) for name in ("error", "message", "detail") if body.get(name))
        return next(filter(None, parts), "")
    return _shortened(body) if isinstance(body, str) else ""


def _problem(entry: object) -> str:
    where = field_of(entry, "loc")
    place = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
    said = str(field_of(entry, "msg") or "")
    return f"{place}: {said}" if place and said else said


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]} …"


def field_of(value: object, name: str) -> Any:
    """Return a field of what should be a JSON object; None where it is none, or has no such field.

    Example:
        >>> field_of({"index": 3}, "index"), field_of([3], "index")
        (3, None)
    """
    return value.get(name) if isinstance(value, Mapping) else None
