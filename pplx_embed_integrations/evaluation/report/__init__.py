"""An evaluation as a page that people look at: one file of HTML, with everything in it.

Example:
    >>> import tempfile
    >>> from pathlib import Path
    >>> from pplx_embed_integrations.evaluation.results import Evaluation
    >>> write_report(Evaluation("tides"), Path(tempfile.mkdtemp()) / "tides.html").stat().st_size > 1000
    True
"""

from .leaving_out import LeaveOneOut
from .page import check_report, render, write_report

__all__ = ["LeaveOneOut", "check_report", "render", "write_report"]
