"""Retrieval quality on a judged collection: which pairing, width and form of vector suits your own texts.

Example:
    >>> from pplx_embed_integrations.evaluation import Collection
    >>> Collection(documents={"d1": "text"}, queries={"q1": "query"}, judgements={"q1": {"d1": 1}}).relevant
    {'d1'}
"""

from .collection import Collection, load_collection
from .measure import Measurement, evaluate

__all__ = ["Collection", "Measurement", "evaluate", "load_collection"]
