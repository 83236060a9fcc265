"""`pplx-embed serve`: models for other programs, over Perplexity's and OpenAI's embeddings APIs.

Knows arguments and what is said to the terminal; must not know HTTP.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from ..checkpoints import hub_id, resolve, resolve_pair
from ..embedder import Embedder
from ..errors import InputError
from ..options import SideOptions
from ..schema import options_of
from .interruption import leave_ctrl_c
from .terminal import shown

KEY_VARIABLE = "PPLX_EMBED_API_KEY"
"""Where keys are that must not stand in a list of processes; several are separated by commas."""


def run(arguments: argparse.Namespace) -> int:
    """Load the models, and serve them until Ctrl-C or SIGTERM."""
    from ..remote import server  # FastAPI takes half a second to import

    limits = server.ServerLimits(
        texts=arguments.max_texts,
        tokens=arguments.max_request_tokens,
        body_bytes=arguments.max_body_bytes,
        requests=arguments.max_requests,
    )
    keys = [*arguments.api_key, *filter(None, os.environ.get(KEY_VARIABLE, "").split(","))]
    server.check_open(arguments.host, keys, allow_no_key=arguments.no_key)
    options = {name: getattr(arguments, name) for name in options_of(SideOptions) if hasattr(arguments, name)}
    models = dict(_models(arguments.models or ["0.6b"], {name: each for name, each in options.items() if each}))
    if arguments.verbose:
        logging.basicConfig(format="%(asctime)s %(message)s", stream=sys.stderr)
        logging.getLogger(__package__.partition(".")[0]).setLevel(logging.INFO)
    leave_ctrl_c()

    def listening(url: str) -> None:
        names = ", ".join(map(shown, models))
        print(f"Serving {names} at {url}; Ctrl-C ends it", flush=True)

    server.run(
        models,
        host=arguments.host,
        port=arguments.port,
        api_keys=keys,
        allow_no_key=arguments.no_key,
        limits=limits,
        listening=listening,
        ready=lambda: print("Ready", flush=True),
    )
    return 0


def _models(given: Iterable[str], options: dict[str, object]) -> Iterable[tuple[str, Embedder]]:
    """Yield the name and the encoder of each model that arguments mean: pairs, checkpoints, folders, NAME=MODEL."""
    from ..backbone.encoder import PplxEncoder

    names: set[str] = set()
    for argument in given:
        name, equals, source = argument.partition("=")
        if equals and not (name and source):
            raise InputError(f"{argument!r} is no model; write NAME=MODEL")
        for model in [source] if equals else dict.fromkeys(resolve_pair(argument)):
            encoder = PplxEncoder(model, **options)  # type: ignore[arg-type]
            called = name if equals else _name(model)
            if called in names:
                raise InputError(f"two models are called {called!r}; give one of them another name: NAME={model}")
            names.add(called)
            yield called, encoder


def _name(model: str) -> str:
    """Return how clients call a model: by its name on the hub, without the owner."""
    if hub_id(model):
        return model
    spec = resolve(model)
    return spec.name if spec.local else Path(spec.source).name
