"""Knows how to turn HTML pages, manual pages, dictionaries and docstrings into titled documents of short chunks.

It must not know which packages exist, what a tokenizer is or what training does with the documents.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_SENTENCE = re.compile(r"(?<=[.!?;:])\s+(?=[A-Z0-9\"'(])")
_SPACE = re.compile(r"\s+")
_ENGLISH = {"the", "of", "and", "to", "is", "for", "with", "by", "or"}
_SKIP = {"nav", "footer"}
_BLOCK = {"p", "li", "dd", "dt", "div", "blockquote", "section", "td", "h1", "h2", "h3", "h4"}


@dataclass
class Document:
    """One titled text in reading order: `headings[i]` is the heading that `chunks[i]` stands under ("" if none)."""

    source: str
    title: str
    chunks: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)

    def add(self, heading: str, text: str) -> None:
        """Appends the passages of one section."""
        for passage in passages(text):
            self.chunks.append(passage)
            self.headings.append(heading)


def clean(text: str) -> str:
    """Collapses white space and drops permalink signs."""
    return _SPACE.sub(" ", text.replace("\u00b6", " ").replace("\u00ad", "")).strip()


def readable(text: str) -> bool:
    """True for English-looking prose: enough letters, mostly ASCII, a few lower-case words, some of them English."""
    letters = sum(c.isalpha() and c.isascii() for c in text)
    words = text.split()
    english = len(words) < 12 or not _ENGLISH.isdisjoint(words)
    return english and len(text) >= 20 and letters >= 0.68 * len(text) and sum(w.islower() for w in words) >= 3


def passages(text: str, *, longest: int = 44, shortest: int = 6) -> list[str]:
    """Cuts prose at sentence borders into passages of at most about `longest` words."""
    out: list[str] = []
    current: list[str] = []
    for sentence in _SENTENCE.split(clean(text)):
        words = sentence.split()[:longest]
        if current and len(current) + len(words) > longest:
            out.append(" ".join(current))
            current = []
        current += words
    out.append(" ".join(current))
    return [passage for passage in out if len(passage.split()) >= shortest and readable(passage)]


class _Page(HTMLParser):
    """Collects (heading, prose) sections of one page; code, tables and navigation are left out."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.sections: list[tuple[str, list[str]]] = [("", [])]
        self.buffer: list[str] = []
        self.skipping: list[str] = []
        self.heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self.skipping:
            if tag == self.skipping[0]:
                self.skipping.append(tag)
            return
        names = " ".join(value or "" for key, value in attrs if key in ("class", "role", "id"))
        sidebar = tag == "div" and re.search(r"sidebar|navig|related|footer|toctree|highlight|header\b", names)
        if tag in _SKIP or sidebar:
            self.skipping.append(tag)
        elif tag in _BLOCK:
            self.flush()
            self.heading = tag in ("h1", "h2", "h3", "h4")

    def handle_endtag(self, tag: str) -> None:
        if self.skipping:
            if tag == self.skipping[0]:
                self.skipping.pop()
        elif tag in _BLOCK:
            self.flush()
            self.heading = False

    def handle_data(self, data: str) -> None:
        if not self.skipping:
            self.buffer.append(data)

    def flush(self) -> None:
        text = clean("".join(self.buffer))
        self.buffer = []
        if text and self.heading:
            self.sections.append((text, []))
        elif len(text.split()) >= 4:
            self.sections[-1][1].append(text)


_UNREAD = re.compile(
    r"(?is)<(head|pre|script|style|table|svg|math)\b.*?</\1>|<!--.*?-->|</?(?:span|a|em|code|tt|b|i)\b[^>]*>"
)
_NUMBERING = re.compile(r"^(?:chapter|appendix|section)?\s*[A-Z]?[\d.]*[.:)]?\s+(?=\S)", re.IGNORECASE)


def html_document(source: str, markup: str) -> Document | None:
    """One page as a document titled by its first heading; None where there is no heading or no prose."""
    page = _Page()
    page.feed(_UNREAD.sub("", markup))
    page.flush()
    named = [(_NUMBERING.sub("", heading)[:90], body) for heading, body in page.sections]
    title = next((heading for heading, _ in named if heading), "")
    if len(title) < 3 or len(title.split()) > 12:
        return None
    document = Document(source, title)
    for heading, body in named:
        document.add("" if heading == title else heading, " ".join(body))
    return document if document.chunks else None


def manual_page(source: str, roff: str) -> Document | None:
    """One manual page: its NAME line is the title, its sections are the chunks."""
    text = re.sub(r'(?m)^[.\'](?:\\"|TH|ad|hy|nh|if|ie|el|de|so|in|ta|ti).*$', "", roff)
    text = re.sub(r"(?ms)^\.(?:EX|nf)$.*?^\.(?:EE|fi)$", "", text)
    text = re.sub(r"(?m)^\.(?!SH)[A-Z]+ ?", "", text)
    text = re.sub(r"\\f[BIRP]|\\f\(..|\\[&,/|]|\"", "", text).replace("\\-", "-").replace("\\(aq", "'")
    parts = re.split(r"(?m)^\.SH *(.*)$", text)
    sections = {parts[i].strip(): parts[i + 1] for i in range(1, len(parts) - 1, 2)}
    title = clean(sections.pop("NAME", "")).replace(" - ", ": ", 1)
    if not title or len(title) > 120:
        return None
    document = Document(source, title)
    for heading, body in sections.items():
        if heading in ("DESCRIPTION", "NOTES", "RETURN VALUE", "BUGS"):
            document.add(heading.lower(), body)
    return document if document.chunks else None


def wordnet_entries(source: str, data: str) -> Iterator[Document]:
    """Every synset of one WordNet data file: its lemmas are the title, its gloss is the chunk."""
    for line in data.splitlines():
        if line.startswith("  ") or "|" not in line:
            continue
        head, gloss = line.split("|", 1)
        fields = head.split()
        lemmas = [fields[4 + 2 * i].split("(")[0].replace("_", " ") for i in range(int(fields[3], 16))]
        yield Document(source, ", ".join(lemmas[:4]), [clean(gloss)], [""])


def terms(source: str, entries: Iterable[tuple[str, str]]) -> Iterator[Document]:
    """Terms of an ontology as titles, their definitions as chunks."""
    for name, definition in entries:
        document = Document(source, clean(name))
        document.add("", re.sub(r"\\+[\"n]", " ", definition))
        if document.chunks:
            yield document


def dictionary_entries(source: str, text: str) -> Iterator[Document]:
    """Entries of a dictd dictionary laid out as a headword in column 0 and indented text under it (FOLDOC)."""
    for match in re.finditer(r"(?m)^(\S[^\n]{1,60})\n\n((?:(?:[ \t]+[^\n]*)?\n)+)", text):
        body = re.sub(r"<[^>\n]*>|[{}]|\(\d{4}-\d\d-\d\d\)", " ", match[2])
        document = Document(source, match[1].strip())
        document.add("", body)
        if document.chunks:
            yield document


def gcide_entries(source: str, text: str) -> Iterator[Document]:
    """Entries of the Collaborative International Dictionary: headword and first definitions."""
    for match in re.finditer(r"(?m)^([A-Z][\w' -]{2,40}) \\[^\n]*\n((?:[ \t]+[^\n]*\n|\n(?=[ \t]))+)", text):
        body = re.sub(r"\[[^\]]*\]|--[A-Z][\w. ]+|[{}]|\"", " ", match[2])
        body = re.sub(r"(?m)^\s{10,}.*$", "", body)
        document = Document(source, match[1].strip())
        document.add("", body)
        if document.chunks:
            document.chunks, document.headings = document.chunks[:1], [""]
            yield document


def package_entries(source: str, records: str) -> Iterator[Document]:
    """Debian package records: the short description is the title, the long description the chunks."""
    seen: set[str] = set()
    for record in records.split("\n\n"):
        match = re.search(r"(?m)^Description(?:-en)?: (.*)\n((?: .*\n?)+)", record)
        if not match:
            continue
        body = " ".join(line for line in match[2].split("\n") if line.strip() != ".")
        if body[:160] in seen:
            continue
        seen.add(body[:160])
        document = Document(source, clean(match[1]))
        document.add("", body)
        if document.chunks:
            yield document


def docstring_entries(source: str, code: str) -> Iterator[Document]:
    """Public functions and classes of one Python file: words of the name are the title, the docstring the chunks."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        parts = re.split(
            r"\n\s*(?:Parameters|Returns|Notes|Examples|References|Args|See Also)\b",
            re.sub(r":math:|`|\.\. math::|\*\*|:\w+:", "", ast.get_docstring(node) or ""),
        )
        summary, _, rest = parts[0].partition("\n\n")
        if len(clean(summary).split()) < 3 or len(clean(summary)) > 200:
            continue
        document = Document(source, clean(summary))
        document.add("", rest)
        if document.chunks:
            yield document
