"""Arguments in, one command run, an exit code out.

Knows the commands' names, arguments and help texts, and how an error is shown; must not know how any command works.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run `pplx-embed`."""
    raise SystemExit("pplx-embed: not built yet")
