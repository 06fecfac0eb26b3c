"""What leaves the house on the way to an upstream, and which addresses are taken."""

import asyncio
import json
import ssl
import subprocess
from pathlib import Path

import pytest
import uvloop

from keepless.config import Engine, ModelConfig, UpstreamConfig
from keepless.errors import ConfigError
from keepless.inference.backend import FailureKind
from keepless.inference.upstream import UpstreamBackend, upstream_backends
from tests.support.sinks import Recorder, ask
from tests.support.upstream import MockUpstream


def model(base_url: str, **more) -> UpstreamConfig:
    return UpstreamConfig(base_url=base_url, **more)


def one(backend: UpstreamBackend, **more) -> Recorder:
    async def main() -> Recorder:
        try:
            return await ask(backend, {"model": "m"}, **more)
        finally:
            await backend.close()

    return uvloop.run(main())


def test_only_our_own_headers_leave() -> None:
    with MockUpstream() as mock:
        backend = UpstreamBackend(model(mock.base_url, api_key_env="K"), environ={"K": "sk-secret", "OTHER": "x"})
        one(backend, headers=[(b"x-ours", b"1")])
        (got,) = mock.received
        assert got.path == "/v1/chat/completions"
        assert got.headers == {
            "host": f"127.0.0.1:{mock.port}",
            "authorization": "Bearer sk-secret",
            "user-agent": "keepless",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",
            "x-ours": "1",
            "content-length": str(len(got.body)),
        }
        assert json.loads(got.body) == {"model": "m"}


def test_no_key_no_credential() -> None:
    with MockUpstream() as mock:
        one(UpstreamBackend(model(mock.base_url + "/"), environ={"OPENAI_API_KEY": "not asked for"}))
        assert "authorization" not in mock.received[0].headers
        assert mock.received[0].path == "/v1/chat/completions"


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_a_refusal_is_handed_on_as_it_came(status: int) -> None:
    with MockUpstream() as mock:

        async def main() -> Recorder:
            backend = UpstreamBackend(model(mock.base_url))
            recorder = await ask(backend, {"model": f"error-{status}"})
            await backend.close()
            return recorder

        recorder = uvloop.run(main())
        assert (recorder.status, recorder.calls) == (status, ["head", "data", "end"])
        assert recorder.json["error"]["message"] == mock.error_text
        assert recorder.retry_after_s == (7 if status in (429, 503) else None)


def test_a_stream_is_untouched() -> None:
    with MockUpstream() as mock:

        async def main() -> bytes:
            backend = UpstreamBackend(model(mock.base_url))
            recorder = await ask(backend, {"model": "m", "stream": True})
            await backend.close()
            return recorder.body

        body = uvloop.run(main())
        assert body.startswith(b'data: {"id": "chatcmpl-up"')
        assert body.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://host/v1",
        "http://",
        "http://user:password@host/v1",
        "http://host/v1?key=1",
        "http://host/v1#x",
        "http://host:port/v1",
        "http://ho st/v1",
        "http://host/v 1",
        "http://host/v1\r\nx: y",
        "host/v1",
    ],
)
def test_addresses_that_are_refused(base_url: str) -> None:
    with pytest.raises(ConfigError, match=r"upstream\.base_url"):
        UpstreamBackend(model(base_url), environ={})


def test_the_place_in_the_configuration_is_named() -> None:
    one, bad = UpstreamConfig(base_url="http://x/v1"), UpstreamConfig(base_url="ftp://x")
    with pytest.raises(ConfigError, match=r"models\[m\]\.upstreams\[1\]\.base_url"):
        upstream_backends(ModelConfig(id="m", engine=Engine.OPENAI, upstreams=[one, bad]))
    with pytest.raises(ConfigError, match=r"models\[m\]\.base_url"):
        upstream_backends(ModelConfig(id="m", engine=Engine.OPENAI, base_url="ftp://x"))


@pytest.mark.parametrize("key", [None, "", "with space", "line\nbreak", "ümlaut"])
def test_credentials_that_are_refused(key: str | None) -> None:
    environ = {} if key is None else {"K": key}
    with pytest.raises(ConfigError, match="api_key_env"):
        UpstreamBackend(model("http://host/v1", api_key_env="K"), environ=environ)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of its own authority for 127.0.0.1, with its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-keyout", folder / "key", "-out", folder / "cert", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    both = folder / "both"
    both.write_bytes((folder / "cert").read_bytes() + (folder / "key").read_bytes())
    return both


@pytest.mark.parametrize("loop", [asyncio.run, uvloop.run])
def test_tls_with_a_certificate_that_is_trusted_and_one_that_is_not(certificate: Path, loop) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    with MockUpstream(tls=server) as mock:

        async def main() -> None:
            trusting = UpstreamBackend(
                model(mock.base_url), tls=ssl.create_default_context(cafile=str(certificate)), environ={}
            )
            for fill in (10, 200_000, 10):
                assert (await ask(trusting, {"model": "m", "fill": "x" * fill})).calls[-1] == "end"
            await trusting.close()
            assert mock.connections == 1
            strict = UpstreamBackend(model(mock.base_url), environ={})
            assert (await ask(strict, {"model": "m"})).kind is FailureKind.UNREACHABLE
            await strict.close()

        loop(main())
        assert len(mock.received) == 3
