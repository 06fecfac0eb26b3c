"""Every endpoint has a path below both bases, and one handler for HTTP and batches."""

import asyncio

from keepless.gateway.endpoints import BASES, PATHS, fast_paths
from tests.support.way import Harness


def test_every_handler_has_its_paths() -> None:
    async def main() -> None:
        harness = Harness()
        assert harness.handlers.keys() == PATHS.keys()
        paths = fast_paths(harness.handlers)
        assert len(paths) == len(PATHS) * len(BASES)
        for endpoint, path in PATHS.items():
            for base in BASES:
                assert paths[f"{base}{path}".encode()] is harness.handlers[endpoint]
        harness.close()

    asyncio.run(main())
