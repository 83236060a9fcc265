"""What a request asks for: its body, parsed and checked, before anything is computed.

Knows the fields of requests and what is wrong with them; must not know models.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic_core import from_json

from ...inputs import EMPTY, Role
from ..encoding import FORMS
from ..protocol import ContextualizedRequest, EmbeddingsRequest, EncodingFormat
from .limits import ServerLimits
from .refusals import RefusedError, at_fault

_SHOWN = 100
"""Characters of a name from the request that an error repeats."""


@dataclass(frozen=True)
class Asked:
    """A request's content.

    Attributes:
        model: The model's name, as it was sent.
        texts: All texts, or the chunks of all documents, in order.
        chunks: How many of them each document has; None where each text stands by itself.
        dimensions: Width of the vectors.
        encoding_format: How they are written.
        role: What the texts are.
    """

    model: str
    texts: list[str]
    chunks: list[int] | None
    dimensions: int | None
    encoding_format: EncodingFormat
    role: Role | None

    def documents(self) -> list[list[str]]:
        """Return the documents."""
        texts = iter(self.texts)
        return [[next(texts) for _ in range(count)] for count in self.chunks or ()]

    def place(self, number: int) -> tuple[str | int, ...]:
        """Return where in the body a text is."""
        if self.chunks is None:
            return "input", number
        document = 0
        while number >= self.chunks[document]:
            number -= self.chunks[document]
            document += 1
        return "input", document, number

    def called(self, number: int) -> str:
        """Return what an error calls a text."""
        place = self.place(number)
        return f"text {place[1]}" if len(place) == 2 else f"chunk {place[2]} of document {place[1]}"


def read_request(body: bytes, limits: ServerLimits, *, contextual: bool) -> Asked:
    """Parse and check a body.

    Args:
        body: JSON.
        limits: How much may be in it.
        contextual: Whether documents are expected, or texts.

    Raises:
        RefusedError: 400, it is no JSON; 422, it is not what is wanted.
    """
    _check_structure(body, limits)
    try:
        fields = from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        # jiter says what and where, in its own words and not in the request's.
        raise RefusedError(400, f"the body is no JSON: {error}", code="json_invalid") from None
    if not isinstance(fields, dict):
        raise at_fault(f"the body must be a JSON object, not {_kind(fields)}")
    _check_names(fields, ContextualizedRequest if contextual else EmbeddingsRequest)
    texts, chunks = _documents(fields["input"], limits) if contextual else (_texts(fields["input"], limits), None)
    asked = Asked(
        model=_string(fields, "model"),
        texts=texts,
        chunks=chunks,
        dimensions=_dimensions(fields),
        encoding_format=cast("EncodingFormat", _choice(fields, "encoding_format", tuple(FORMS), "base64_int8")),
        role=cast("Role | None", _choice(fields, "input_type", get_args(Role), None)),
    )
    if contextual and asked.role == "query":
        raise at_fault(
            'chunks are read as documents; send queries to /v1/embeddings, or each as [["query"]]', "input_type"
        )
    return asked


def _check_structure(body: bytes, limits: ServerLimits) -> None:
    """Refuse a body with far more values than are allowed before they become objects, which take 60 bytes each."""
    most = limits.chunks + 2 * limits.texts + 16
    if _values(body) <= most:  # there are fewer outside strings than anywhere
        return
    plain = body.replace(rb"\\", b"").replace(rb"\"", b"")
    # Every second part lies outside strings; with too many of those it is not worth a look.
    if plain.count(b'"') > 2 * most or _values(b"".join(plain.split(b'"')[::2])) > most:
        raise at_fault(
            f"the input has more parts than are allowed: {limits.texts} texts or documents, {limits.chunks} chunks",
            "input",
        )


def _values(body: bytes) -> int:
    return sum(map(body.count, (b",", b"[", b"{")))


def _check_names(fields: dict[str, Any], wanted: type) -> None:
    known = list(wanted.__annotations__)
    for name in fields:
        if name not in known:
            nearest = difflib.get_close_matches(name[:_SHOWN], known, n=1, cutoff=0.6)
            hint = f" (did you mean {nearest[0]!r}?)" if nearest else ""
            message = f"there is no field {name[:_SHOWN]!r}{hint}; there are: {', '.join(known)}"
            raise at_fault(message, name[:_SHOWN], code="extra_forbidden")
    for name in ("input", "model"):
        if name not in fields:
            raise at_fault(f"the field {name!r} is missing", name, code="missing")


def _texts(given: object, limits: ServerLimits) -> list[str]:
    if isinstance(given, str):
        given = [given]
    texts = _list(given, "the input", "a text or a list of texts", "input")
    _check_count("texts", len(texts), limits.texts)
    if texts and all(isinstance(each, (int, list)) for each in texts):
        numbers = [each for part in texts for each in (part if isinstance(part, list) else [part])]
        if all(type(each) is int for each in numbers):
            raise at_fault(
                "token ids are not taken: send the texts themselves; with LangChain's OpenAIEmbeddings, pass "
                "check_embedding_ctx_length=False",
                "input",
            )
        raise at_fault("lists of chunks go to /v1/contextualizedembeddings; here each text stands by itself", "input")
    _check_texts(texts, "text {}", ("input",))
    return cast("list[str]", texts)


def _documents(given: object, limits: ServerLimits) -> tuple[list[str], list[int]]:
    documents = _list(given, "the input", "a list of documents, each a list of its chunks", "input")
    _check_count("documents", len(documents), limits.texts)
    for number, chunks in enumerate(documents):
        _list(chunks, f"document {number}", "a list of chunks", "input", number)
    _check_count("chunks", sum(map(len, documents)), limits.chunks)
    for number, chunks in enumerate(documents):
        _check_texts(chunks, f"chunk {{}} of document {number}", ("input", number))
    return [chunk for chunks in documents for chunk in chunks], [len(chunks) for chunks in documents]


def _list(given: object, name: str, wanted: str, *where: str | int) -> list[Any]:
    if not isinstance(given, list):
        raise at_fault(f"{name} must be {wanted}, not {_kind(given)}", *where)
    if not given:
        raise at_fault(f"{name} is empty; it must be {wanted}", *where)
    return given


def _check_texts(texts: list[Any], name: str, where: tuple[str | int, ...]) -> None:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise at_fault(f"{name.format(number)} must be a string, not {_kind(text)}", *where, number)
        if not text:
            raise at_fault(f"{name.format(number)} {EMPTY}", *where, number)


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise at_fault(f"the input has {count} {what} and the limit is {most}; send them in several requests", "input")


def _string(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise at_fault(f"{name} must be a string, not {_kind(value)}", name)
    return value


def _dimensions(fields: dict[str, Any]) -> int | None:
    value = fields.get("dimensions")
    if value is not None and type(value) is not int:
        raise at_fault(f"dimensions must be an integer, not {_kind(value)}", "dimensions")
    return value


def _choice(fields: dict[str, Any], name: str, choices: Sequence[str], default: str | None) -> str | None:
    value = fields.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or value not in choices:
        given = repr(value[:_SHOWN]) if isinstance(value, str) else _kind(value)
        raise at_fault(f"{name} is {given}; it must be one of: {', '.join(choices)}", name)
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
