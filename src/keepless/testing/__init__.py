"""For the tests of those who use Keepless: a running server as a pytest fixture, and `assert_nothing_kept`.

    from keepless.testing import keepless_server

Holds: the fixture and `serve`, with which to make one's own. Leaves out: what the server is (server). pytest is the
user's: nothing else of Keepless imports this package.
"""

from collections.abc import Iterator

import pytest

from keepless.prover.upstream import Temper
from keepless.testing.server import Organization, Server, serve

__all__ = ["Organization", "Server", "Temper", "keepless_server", "serve"]


@pytest.fixture(scope="session")
def keepless_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with the embedded model and models that fail on purpose, on a free port, for the whole session."""
    with serve(tmp_path_factory.mktemp("k")) as server:
        yield server
