"""HTML to its text, in the order in which it is read, with headings as Markdown has them.

Knows which tags begin a line and which hold no text; must not know files or chunks.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

HTML = {".html", ".htm", ".xhtml"}
"""File suffixes."""

_SILENT = {"script", "style", "template"}
_LINES = {"br", "dd", "dt", "li", "option", "td", "th", "tr"}
_PARAGRAPHS = set(
    "address article aside blockquote body caption details div dl fieldset figcaption figure footer form head header "
    "hr legend main nav ol p pre section summary table tbody tfoot thead title ul".split()
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}


def html_text(html: str) -> str:
    """Return the text of an HTML page.

    LangChain's own converters are not used: they put the words of an inline tag before or behind its sentence, or want
    a package that is no longer maintained.

    Example:
        >>> print(html_text("<title>Tides</title><h1>The moon</h1><p>Its <b>pull</b> is &gt; 0.<script>x()</script>"))
        Tides
        <BLANKLINE>
        # The moon
        <BLANKLINE>
        Its pull is > 0.
    """
    parser = _Text()
    parser.feed(html)
    parser.close()
    text = re.sub(r"[^\S\n]+\n", "\n", "".join(parser.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = ["\n"]
        self._silent = 0
        self._verbatim = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._silent += tag in _SILENT
        self._verbatim += tag == "pre"
        self._break(tag)
        if tag in _HEADINGS:
            self.parts.append("#" * _HEADINGS[tag] + " ")

    def handle_endtag(self, tag: str) -> None:
        self._silent = max(0, self._silent - (tag in _SILENT))
        self._verbatim = max(0, self._verbatim - (tag == "pre"))
        if tag not in _LINES:
            self._break(tag)

    def handle_data(self, data: str) -> None:
        if self._silent:
            return
        if not self._verbatim:
            data = re.sub(r"\s+", " ", data)
            if self.parts[-1][-1:] in ("\n", " "):
                data = data.lstrip()
        if data:
            self.parts.append(data)

    def _break(self, tag: str) -> None:
        if tag in _PARAGRAPHS or tag in _HEADINGS:
            self.parts.append("\n\n")
        elif tag in _LINES:
            self.parts.append("\n")
