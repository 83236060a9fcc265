"""Write the tables of options into the documentation, from where options and commands are declared.

A table stands between `<!-- options: NAME -->` and `<!-- end of options -->`, where NAME is a class of options, or a
command such as `pplx-embed index`.
Usage: python tools/options.py docs/*.md
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from pplx_embed_integrations.cli.arguments import parser
from pplx_embed_integrations.llama_index.options import NodeOptions
from pplx_embed_integrations.options import BiEncoderOptions
from pplx_embed_integrations.schema import Option, options_of

_MORE = {
    "backend": "performance.md#faster-on-a-cpu",
    "devices": "performance.md#several-devices",
    "dimensions": "dimensions-and-quantization.md",
    "metadata_mode": "contextual-llama-index.md#metadata",
    "metadata_per_document": "contextual-llama-index.md#metadata",
    "quantization": "dimensions-and-quantization.md",
    "query_cache": "performance.md#queries-under-load",
    "weights": "performance.md#faster-on-a-cpu",
}
"""Where the documentation says more."""
_TABLE = re.compile(r"(<!-- options: ([\w -]+?) -->\n).*?(<!-- end of options -->)", re.DOTALL)


def refreshed(text: str) -> str:
    """Return a page with its tables as they should be."""
    return _TABLE.sub(lambda found: found[1] + table(found[2]) + found[3], text)


def table(name: str) -> str:
    """Return the table of a class of options, or of a command."""
    if name.startswith("pplx-embed "):
        return "\n".join(["| Option | |", "|---|---|", *map(_argument, _arguments(name.split()[1])), ""])
    schemas = {schema.__name__: schema for schema in (BiEncoderOptions, NodeOptions)}
    rows = [_row(option, each) for option, each in options_of(schemas[name]).items()]
    return "\n".join(["| Option | Default | Changes vectors | |", "|---|---|---|---|", *rows, ""])


def _row(name: str, option: Option) -> str:
    more = f"; [more]({_MORE[name]})" if name in _MORE else ""
    decisive = "yes" if option.changes_vectors else ""
    return f"| `{name}` | {option.shown_default} | {decisive} | {option.description}{more} |"


def _arguments(command: str) -> list[argparse.Action]:
    [commands] = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return [each for each in commands.choices[command]._actions if each.option_strings and each.dest != "help"]


def _argument(action: argparse.Action) -> str:
    values = " or ".join(f"`{each}`" for each in action.choices or ()) or str(action.metavar or "").replace("|", " or ")
    several = " …" if action.nargs == "+" else ""
    return f"| `{action.option_strings[0]}` {values}{several} | {action.help} |".replace("  |", " |")


if __name__ == "__main__":
    for page in map(Path, sys.argv[1:]):
        page.write_text(refreshed(page.read_text(encoding="utf-8")), encoding="utf-8")
