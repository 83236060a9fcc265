"""The exception tree: one root, a builtin beside every class, and safe passage between processes."""

import copy
import inspect
import pickle

import pytest

import pplx_embed_integrations
from pplx_embed_integrations import errors

RAISED = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, Exception)]
EXCEPTIONS = [each for each in RAISED if not each.__name__.endswith(("PplxEmbedError", "Warning"))]


@pytest.mark.parametrize("kind", EXCEPTIONS)
def test_every_exception_is_also_a_builtin_one(kind: type[Exception]) -> None:
    assert issubclass(kind, errors.PplxEmbedError)
    assert any(issubclass(kind, builtin) for builtin in (ValueError, TypeError, OSError, ImportError, RuntimeError))


def test_every_one_is_at_the_front_door() -> None:
    assert {each.__name__ for each in RAISED} < set(pplx_embed_integrations.__all__)


@pytest.mark.parametrize(
    "error",
    [
        *(kind("what was given") for kind in EXCEPTIONS if kind is not errors.MissingDependencyError),
        errors.MissingDependencyError("langchain_core", extra="langchain"),
    ],
)
def test_errors_survive_the_way_to_another_process(error: Exception) -> None:
    for copied in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(copied) is type(error)
        assert str(copied) == str(error)


def test_a_missing_dependency_names_the_command() -> None:
    with pytest.raises(ImportError, match=r'type: pip install "pplx-embed-integrations\[llama-index\]"'):
        raise errors.MissingDependencyError("llama_index", extra="llama-index")
