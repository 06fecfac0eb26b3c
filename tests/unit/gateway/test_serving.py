"""What connections share."""

import asyncio

from keepless.config import Limits
from keepless.gateway.serving import Serving
from tests.support.http import no_app


def test_uploads_are_limited_like_other_bodies_unless_said_otherwise() -> None:
    async def main() -> None:
        assert Serving({}, no_app, Limits(body_bytes=7)).upload_bytes == 7
        assert Serving({}, no_app, Limits(body_bytes=7), upload_bytes=9).upload_bytes == 9

    asyncio.run(main())
