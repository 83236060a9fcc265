"""A folder to a collection, in whichever layout it is.

Knows how to tell the layouts apart; must not know their files.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from . import beir, conteb
from .collection import Collection
from .reading import exists


def load_collection(folder: str | Path, *, split: str = "test") -> Collection:
    """Read a collection in the BEIR layout, which may judge passages, or in ConTEB's.

    **BEIR**: `corpus.jsonl` has an object a line with `_id`, `text` and perhaps `title`; `queries.jsonl` has `_id` and
    `text`; `qrels/<split>.tsv` has the columns query id, document id and grade, with or without a header, or the four
    columns of TREC. Any of them may be compressed (`.gz`). A title is put before its text, with an empty line between.

    `qrels/passages.tsv` says which passages answer: query id, document id, start, end and grade, separated by tabs.
    Start and end count characters (code points) of the line's `text` from 0, **without its title**; end is exclusive.
    `Passage` has them in the whole that the splitter gets, title and empty line included. A document with a right
    passage is relevant. Where `qrels/test.tsv` is there as well, it decides which queries are asked.

    **ConTEB**: `documents.jsonl` has `chunk_id` (the document's id, `_`, the chunk's number) and `chunk`;
    `queries.jsonl` has `query` and `chunk_id` or `chunk_ids`. The folders `documents` and `queries` of a data set that
    was copied from the hub do as well, with their Parquet files `<split>-*.parquet`. The chunks stay as they are.

    Real collections are not tidy: what is repeated, missing or not asked about is counted in `notes`. A judged document
    or chunk that is not in the corpus stays judged, and cannot be found, as in BEIR itself.

    Args:
        folder: Where the files are.
        split: Which file of `qrels`, or which Parquet files.

    Returns:
        The collection. Queries without a relevant document are left out, as in BEIR itself.

    Raises:
        InputError: A file is missing, a line cannot be read, or nothing is judged; the message names file and line.
        MissingDependencyError: There are Parquet files, and `pyarrow` is not installed.

    Example:
        >>> load_collection("nowhere")
        Traceback (most recent call last):
        pplx_embed_integrations.errors.InputError: 'nowhere' is no folder; the BEIR layout is corpus.jsonl, ...
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{str(folder)!r} is no folder; {beir.LAYOUT}; {conteb.LAYOUT}")
    has_corpus = exists(root / "corpus.jsonl")
    if has_corpus and conteb.is_conteb(root):
        raise InputError(
            f"{str(folder)!r} holds both corpus.jsonl and documents: two layouts; leave one of them ({beir.LAYOUT}; "
            f"{conteb.LAYOUT})"
        )
    if not has_corpus and conteb.is_conteb(root):
        return conteb.load_conteb(root, split=split)
    return beir.load_beir(root, split=split)
