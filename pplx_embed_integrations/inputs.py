"""What may be embedded: the checks every entrance shares, with errors that name the position.

Knows the types and limits of arguments; must not know models or frameworks.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, get_args

from .errors import InputError, InputTypeError

if TYPE_CHECKING:
    import numpy.typing as npt

Role = Literal["query", "document"]
"""What a text is embedded as, where a model reads the two differently."""
EMPTY = "is empty; an empty text has no vector: leave it out"
"""What an error says of a text without characters."""
_LISTED = 20
"""Problems that one error lists."""


def check_role(role: object) -> None:
    """Refuse what is no role.

    Raises:
        InputError: It is not `"query"`, `"document"` or `None`.

    Example:
        >>> check_role("query")
    """
    if role is not None and role not in get_args(Role):
        raise InputError(f'role={role!r} is unknown; use "query", "document" or None')


def check_text(text: object, *, name: str = "the text") -> str:
    """Return `text` if it is a non-empty string.

    Raises:
        InputError: It is empty.
        InputTypeError: It is no string.

    Example:
        >>> check_text("a")
        'a'
    """
    if not isinstance(text, str):
        raise InputTypeError(f"{name} must be a str, not {type(text).__name__}")
    if not text:
        raise InputError(f"{name} {EMPTY}")
    return text


def check_texts(
    texts: object,
    *,
    name: str = "text {}",
    wanted: str = "a list of strings",
    allow_empty: bool = False,
) -> list[str]:
    """Return `texts` as a list of non-empty strings.

    Args:
        texts: Any iterable of strings that has an order.
        name: How an error calls the text at position `{}`.
        wanted: How an error calls what should have been given.
        allow_empty: Whether texts may be empty.

    Raises:
        InputError: A text is empty.
        InputTypeError: `texts` is a bare string or no ordered iterable, or an element is no string.

    Example:
        >>> check_texts(("a", "b"))
        ['a', 'b']
    """
    items = _items(texts, wanted)
    for position, text in enumerate(items):
        if not isinstance(text, str) or not text:
            if isinstance(text, (list, tuple)):
                raise InputTypeError(
                    f"{name.format(position)} must be a str, not {type(text).__name__}; a document of several chunks "
                    "goes through encode_documents, in a list of documents"
                )
            if text != "" or not allow_empty:
                check_text(text, name=name.format(position))
    return items


def check_documents(
    documents: object, *, names: Sequence[str] | None = None, allow_empty: bool = False
) -> list[list[str]]:
    """Return `documents` as lists of non-empty strings, a list a document.

    Args:
        documents: Documents, each a list of its chunks.
        names: How an error calls each document, by default `document 0` and so on.
        allow_empty: Whether chunks may be empty.

    Raises:
        InputError: A chunk is empty, or there are more or fewer names than documents.
        InputTypeError: The nesting is not documents of chunks, or a chunk is no string.

    Example:
        >>> check_documents([["a", "b"], ["c"]])
        [['a', 'b'], ['c']]
    """
    items = _items(documents, "a list of documents, each a list of chunks (strings)")
    if names is not None and len(names) != len(items):
        raise InputError(f"there are {len(names)} names for {len(items)} documents; give each document one")
    checked = []
    for position, chunks in enumerate(items):
        name = document_name(position, names)
        wanted = f"for {name} a list of chunks"
        # The name goes through `format`.
        chunk = chunk_name(name.replace("{", "{{").replace("}", "}}"), "{}")
        checked.append(check_texts(chunks, name=chunk, wanted=wanted, allow_empty=allow_empty))
    return checked


def document_name(position: int, names: Sequence[str] | None) -> str:
    """Return how an error calls the document at a position.

    Example:
        >>> document_name(2, None), document_name(0, ["report.txt"])
        ('document 2', 'report.txt')
    """
    return f"document {position}" if names is None else names[position]


def chunk_name(document: str, chunk: object) -> str:
    """Return how an error calls a chunk of a document.

    Example:
        >>> chunk_name("report.txt", 3)
        'chunk 3 of report.txt'
    """
    return f"chunk {chunk} of {document}"


def refuse(problems: Sequence[str]) -> None:
    """Raise one error for all that was found wrong, if anything was.

    Args:
        problems: A sentence for each chunk that cannot be embedded.

    Raises:
        InputError: There are some; the first of them are listed, the others counted.

    Example:
        >>> refuse([])
    """
    if len(problems) == 1:
        raise InputError(problems[0])
    if problems:
        more = len(problems) - _LISTED
        lines = [f"{len(problems)} chunks cannot be embedded:", *problems[:_LISTED]]
        raise InputError("\n- ".join([*lines, f"and {more} more"] if more > 0 else lines))


def refuse_chunks(
    documents: Sequence[Sequence[str]],
    problems: Callable[[Sequence[str]], Iterable[tuple[int, str]]],
    *,
    names: Sequence[str] | None = None,
    call: Callable[[str, int], str] = chunk_name,
) -> None:
    """Raise one error for all chunks that cannot be embedded.

    Args:
        documents: Documents, each a list of its chunks.
        problems: Finds what is wrong among texts: positions, in any order, and what an error says of each.
        names: How the error calls each document.
        call: How it calls a chunk, by its document's name and its place there.

    Raises:
        InputError: There are some.
    """
    places = [(document, chunk) for document, chunks in enumerate(documents) for chunk in range(len(chunks))]
    found = sorted(problems([text for chunks in documents for text in chunks]))
    refuse([f"{call(document_name(places[at][0], names), places[at][1])} {problem}" for at, problem in found])


def not_unicode(text: str) -> str | None:
    """Return what an error says of a text that cannot be written in UTF-8, None of any other.

    Example:
        >>> not_unicode("ü") is None
        True
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return (
            f"has a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which is no text; "
            "decode the source with the right encoding, or use text.encode('utf-8', 'replace').decode()"
        )
    return None


def too_long(tokens: int, max_tokens: int, *, truncatable: bool = True) -> str:
    """Return what an error says of a text that has too many tokens.

    Example:
        >>> too_long(9, 8, truncatable=False)
        'has 9 tokens and the limit is 8; split it'
    """
    remedy = ", or pass truncate=True to embed its beginning only" if truncatable else ""
    return f"has {tokens} tokens and the limit is {max_tokens}; split it{remedy}"


def most_tokens(text: str) -> int:
    """Return a number that a text's tokens, of byte-level BPE, do not exceed: its bytes, once they are normalised.

    Example:
        >>> most_tokens("Zürich")
        7
    """
    if text.isascii():
        return len(text)
    return len(unicodedata.normalize("NFC", text).encode("utf-8"))


def check_matrix(values: npt.ArrayLike) -> npt.NDArray[Any]:
    """Return values as a matrix of one vector a row.

    Raises:
        InputError: They are none.

    Example:
        >>> check_matrix([[1, 2]]).shape
        (1, 2)
    """
    import numpy as np  # a tenth of a second that the help of a command does without

    matrix = np.asarray(values)
    if matrix.ndim != 2:
        raise InputError(f"a matrix of one vector a row is wanted, not an array of {matrix.ndim} dimensions")
    return matrix


def _items(values: object, wanted: str) -> list[Any]:
    if isinstance(values, str):
        raise InputTypeError(f"{wanted} is wanted, not a bare str; put it in a list: [text]")
    # What has no order, or no elements (an array of no dimensions is "iterable", too).
    unfit = isinstance(values, (bytes, bytearray, Mapping, Set)) or getattr(values, "ndim", 1) == 0
    if unfit or not isinstance(values, Iterable):
        raise InputTypeError(f"{wanted} is wanted, not {type(values).__name__}")
    return list(values)


def check_positive(name: str, value: object, *, smallest: int = 1, largest: int | None = None) -> int:
    """Return `value` if it is an integer of at least `smallest` and at most `largest`.

    Raises:
        InputError: It is out of range.
        InputTypeError: It is no integer.

    Example:
        >>> check_positive("batch_tokens", 512)
        512
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputTypeError(f"{name} must be an integer, not {type(value).__name__}")
    number = int(value)
    if number < smallest or (largest is not None and number > largest):
        allowed = f"at least {smallest}" if largest is None else f"{smallest} to {largest}"
        raise InputError(f"{name}={number} is out of range; it must be {allowed}")
    return number
