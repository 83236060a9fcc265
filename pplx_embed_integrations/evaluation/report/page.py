"""The page as a file: the template filled in, and put in place only when it is complete.

Knows the template and escaping; must not know what any figure means.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...errors import MissingDependencyError
from ..writing import check_replaceable, replace_file
from .text import printable
from .view import view

if TYPE_CHECKING:
    from jinja2 import Template

    from ..results import Evaluation
    from .leaving_out import LeaveOneOut

_FOLDER = Path(__file__).parent


def write_report(evaluation: Evaluation, path: str | Path, *, explain: LeaveOneOut | None = None) -> Path:
    """Write an evaluation as one page of HTML that needs nothing else: no script, no picture, no font, no request.

    A file that is there is replaced when the new one is complete, and stays as it was if anything fails before.

    Args:
        evaluation: What was measured.
        path: The file.
        explain: Has the page say for the questions that it shows what context lent to the right passage.

    Returns:
        The path.

    Raises:
        InputError: The folder is not there, the path is a folder, or `explain` has other chunks or another embedder
            than the evaluation.
        MissingDependencyError: Jinja2 is not installed.

    Example:
        >>> import tempfile
        >>> from pplx_embed_integrations.evaluation.results import Evaluation
        >>> write_report(Evaluation("tides"), Path(tempfile.mkdtemp()) / "tides.html").name
        'tides.html'
    """
    check_report(path)
    target = Path(path)
    replace_file(target, render(evaluation, explain=explain).encode("utf-8"))
    return target


def check_report(path: str | Path) -> None:
    """Raise what `write_report` would raise for a path, before anything is measured.

    Args:
        path: The file.

    Raises:
        InputError: The folder is not there or may not be written to, or the path is no file that could be replaced.
        MissingDependencyError: Jinja2 is not installed.

    Example:
        >>> check_report("nowhere/out.html")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: there is no folder for the report 'nowhere/out.html'; make it first
    """
    _template()
    check_replaceable(path, "the report")


def render(evaluation: Evaluation, *, explain: LeaveOneOut | None = None) -> str:
    """Return the page; see `write_report`.

    Raises:
        MissingDependencyError: Jinja2 is not installed.
    """
    return _template().render(page=view(evaluation, version=__version__, explain=explain))


@lru_cache(maxsize=1)
def _template() -> Template:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError:
        raise MissingDependencyError("jinja2", extra="evaluate") from None

    def finished(value: Any) -> Any:
        """Texts come from anywhere; what the template made of them is `Markup`, and finished before."""
        return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finished,
        trim_blocks=True,
    )
    environment.globals["css"] = Markup((_FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.jinja")
