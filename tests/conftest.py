"""What every test may lean on: the replica checkpoints, loaded once, and a process that cannot reach the network."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports them: the hub offline, with a cache that holds nothing, and nobody reports usage.
os.environ["HF_HUB_OFFLINE"] = "1"
_HUB = tempfile.TemporaryDirectory(prefix="hub-cache-")
os.environ["HF_HOME"] = _HUB.name
os.environ["ANONYMIZED_TELEMETRY"] = "False"
os.environ["LANGCHAIN_TRACING_V2"] = "false"
os.environ["LANGSMITH_TRACING"] = "false"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Ray on this machine alone: on Linux it listens at the address that leads outside, unless it believes to be elsewhere.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AUTH_MODE"] = "disabled"  # it would write a token into the home folder
os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112  # a process for each core, whether used or not

import pytest
from hypothesis import settings

from tests import postgres
from tests.processes import Processes

if TYPE_CHECKING:
    from pplx_embed_integrations import PplxBiEncoder, PplxEncoder

GOLDEN = Path(__file__).parent / "golden"

# Loading a model or the first forward pass is slower than Hypothesis's default of 200 ms for one example.
settings.register_profile("project", deadline=None, print_blob=True)
settings.load_profile("project")


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_is_heard() -> None:
    """A shell's background jobs ignore it, and tests that press it would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the replica checkpoints and of what the published algorithm gives on them."""
    return GOLDEN


@pytest.fixture(scope="session")
def replica_v1() -> Path:
    """Folder of the small random-weight checkpoint in the layout of pplx-embed-v1 (dimension 32)."""
    return GOLDEN / "replica-v1"


@pytest.fixture(scope="session")
def replica_context_v1() -> Path:
    """Folder of the small random-weight checkpoint in the layout of pplx-embed-context-v1 (dimension 32)."""
    return GOLDEN / "replica-context-v1"


@pytest.fixture(scope="session")
def encoder_v1(replica_v1: Path) -> "PplxEncoder":
    """The v1 replica in float32; shared, so a test must not change it."""
    from pplx_embed_integrations import PplxEncoder

    return PplxEncoder(replica_v1, dtype="float32")


@pytest.fixture(scope="session")
def encoder_context_v1(replica_context_v1: Path) -> "PplxEncoder":
    """The context-v1 replica in float32; shared, so a test must not change it."""
    from pplx_embed_integrations import PplxEncoder

    return PplxEncoder(replica_context_v1, dtype="float32")


@pytest.fixture(scope="session")
def biencoder(replica_v1: Path, replica_context_v1: Path) -> "PplxBiEncoder":
    """The replica pair in float32, v1 for queries and context-v1 for documents; shared."""
    from pplx_embed_integrations import PplxBiEncoder

    return PplxBiEncoder(query_model=str(replica_v1), document_model=str(replica_context_v1), dtype="float32")


SHARED = ("cluster", "postgres_server", "processes")
"""What takes long to start in each process that uses it: its tests come first, so that one process runs them all, as
those who are done take over from the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        needed = getattr(item, "fixturenames", ())  # a doctest has none
        return min((number for number, name in enumerate(SHARED) if name in needed), default=len(SHARED))

    items.sort(key=place)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """A PostgreSQL server with pgvector, started for these tests."""
    with postgres.running() as server:
        yield server


@pytest.fixture
def database(postgres_server: postgres.Server) -> postgres.Database:
    """A fresh database in it."""
    return postgres_server.database()


@pytest.fixture(scope="session")
def processes() -> Processes:
    """Runs functions of test modules in other processes, which have the slow imports behind them."""
    return Processes(
        "torch",
        "sentence_transformers",
        "transformers.models.auto.modeling_auto",
        "langchain_postgres",
        "llama_index.vector_stores.postgres",
        "tests.langchain.test_indexing",
        "tests.llama_index.test_opening",
    )
