"""Retrieval quality on a judged collection: which pairing, width and form of vector suits your own texts.

Example:
    >>> from pplx_embed_integrations.evaluation import Collection
    >>> Collection(documents={"d1": "text"}, queries={"q1": "query"}, judgements={"q1": {"d1": 1}}).relevant
    {'d1'}
"""

from .chunking import Chunked
from .collection import Collection
from .evaluating import evaluate
from .lexical import BM25Searcher
from .loading import load_collection
from .results import Comparison, Evaluation, Found, Measurement, Passage, Question
from .rivals import LangChainSearcher
from .searching import Searcher
from .study import Study

__all__ = [
    "BM25Searcher",
    "Chunked",
    "Collection",
    "Comparison",
    "Evaluation",
    "Found",
    "LangChainSearcher",
    "Measurement",
    "Passage",
    "Question",
    "Searcher",
    "Study",
    "evaluate",
    "load_collection",
]
