"""One request: what is sent for some texts or documents, and the vectors that come of its answer.

Knows both routes and what an error calls a text; must not know how requests are packed, sent again or shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..embedder import OutputForm
from ..errors import EncodingError, InputError, ServerError
from ..inputs import Role
from ..vectors import Vectors
from .encoding import read_documents, read_vectors
from .forms import asked_format, in_form
from .packing import Part
from .protocol import CONTEXTUALIZED, EMBEDDINGS, field_of, message_of
from .served import Served, check_answered
from .transport import RefusedError, Transport
from .usage import Usage

_LISTED = 3


async def request_vectors(
    transport: Transport,
    request: Sequence[Part],
    served: Served,
    form: OutputForm,
    role: Role | None,
    *,
    spent: Callable[[Usage], object],
) -> Vectors:
    """Return the vectors of a request, a row for each chunk that its parts own, in their order.

    Args:
        transport: The server.
        request: What is embedded.
        served: What the server said of the model.
        form: What the vectors look like.
        role: What texts are embedded as.
        spent: Is told what the answer cost.

    Raises:
        CheckpointError: Another model answered.
        EncodingError: The answer is none to this request.
        InputError: The server does not take a text, or has no such vectors.
        ServerError: It cannot be reached, or fails, again and again, or refuses.
    """
    together = request[0].first is not None or (served.api == "perplexity" and served.contextual)
    path = CONTEXTUALIZED if together else EMBEDDINGS
    encoding_format = asked_format(served, form)
    width = served.dimension if served.api == "openai" else form.dimensions
    body: dict[str, Any] = {
        "input": [list(part.chunks) if together else part.chunks[0] for part in request],
        "model": served.name,
        "encoding_format": encoding_format,
    }
    if width != served.dimension:
        body["dimensions"] = width
    if served.api == "pplx-embed" and role is not None:
        body["input_type"] = role
    try:
        answer = await transport.post(path, body)
    except RefusedError as error:
        raise _refused(error, request) from None
    except ServerError as error:
        raise ServerError(f"{error}. Not embedded: {_listed(request)}") from None
    spent(Usage.of(answer))
    check_answered(answer, served, transport.url)
    try:
        if together:
            chunks = [len(part.chunks) for part in request]
            found = read_documents(answer, chunks=chunks, encoding_format=encoding_format, dimensions=width)
            given = np.concatenate([each[part.owned] for part, each in zip(request, found, strict=True)])
        else:
            given = read_vectors(answer, count=len(request), encoding_format=encoding_format, dimensions=width)
        return in_form(given, served, form)
    except EncodingError as error:
        raise EncodingError(f"{transport.url}: {error}. It was asked for {_listed(request)}") from error


def _refused(error: RefusedError, request: Sequence[Part]) -> InputError | ServerError:
    """Return the error for what a server does not take, with the user's name for it where the server says what."""
    if error.status not in (400, 413, 422):
        return ServerError(f"{error}. Not embedded: {_listed(request)}")
    detail = field_of(error.body, "detail")
    for entry in detail if isinstance(detail, list) else ():
        where = field_of(entry, "loc")
        numbers = [part for part in where if type(part) is int] if isinstance(where, list) else []
        if numbers and 0 <= numbers[0] < len(request):
            part = request[numbers[0]]
            name = part.called(numbers[1] if len(numbers) > 1 else 0)
            return InputError(f"{error.url} does not take {name}: {message_of([{'msg': field_of(entry, 'msg')}])}")
    return InputError(f"{error}. Not embedded: {_listed(request)}")


def _listed(request: Sequence[Part]) -> str:
    names = list(dict.fromkeys(part.name for part in request))
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")
