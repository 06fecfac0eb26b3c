"""The fixture for customers' own tests: used here as docs/howto/audit.md says."""

import secrets
from typing import Any

import groq
import openai
import pytest

from keepless.testing import Organization, Server, Temper, keepless_server, serve
from tests.acceptance.test_documents import blocks
from tests.support.golden import ROOT

__all__ = ["keepless_server"]


def ask(organization: Organization, model: str, text: str, **more: object) -> object:
    client = openai.OpenAI(**organization.client, max_retries=0)
    with client:
        return client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": text}], max_tokens=8, **more
        )


def test_the_test_of_the_how_to_passes(keepless_server: Server) -> None:
    (code,) = blocks(ROOT / "docs/howto/audit.md", "python")
    names: dict[str, Any] = {}
    exec(compile(code, "audit.md", "exec"), names)
    names["test_nothing_of_it_is_kept"](keepless_server)


def test_an_answer_leaves_nothing(keepless_server: Server) -> None:
    secret = secrets.token_hex(8)
    organization = keepless_server.organization()
    assert ask(organization, "smollm2-135m-instruct", secret).choices[0].message.content is not None
    keepless_server.upstream.say = answer = secrets.token_hex(8)
    assert ask(organization, Temper.WELL, secret, user=secret).choices[0].message.content == answer
    organization.assert_nothing_kept(secret, answer)


def test_groq_too(keepless_server: Server) -> None:
    organization = keepless_server.organization(zero_data_retention=True)
    with groq.Groq(**organization.groq_client, max_retries=0) as client:
        answer = client.chat.completions.create(
            model=Temper.WELL, messages=[{"role": "user", "content": "a word of no importance"}]
        )
    assert answer.choices[0].message.content == keepless_server.upstream.say
    organization.assert_nothing_kept("a word of no importance")


def test_a_failure_is_kept_and_that_is_told(keepless_server: Server) -> None:
    secret = secrets.token_hex(8)
    organization = keepless_server.organization()
    with pytest.raises(openai.InternalServerError):
        ask(organization, Temper.BROKEN, secret)
    with pytest.raises(AssertionError, match=r"^kept: obj_\w+ \(reliability_log, upstream_5xx\)$"):
        organization.assert_nothing_kept(secret)
    organization.set_controls(zero_data_retention=True, purge=True)
    kept_by = [one["reason"] for one in organization.retained_objects()]
    assert kept_by in ([], ["upstream_5xx"])  # being purged


def test_under_zero_data_retention_a_failure_leaves_nothing(keepless_server: Server) -> None:
    secret = secrets.token_hex(8)
    organization = keepless_server.organization(zero_data_retention=True)
    for temper in (Temper.BROKEN, Temper.GARBAGE, Temper.CUT):
        with pytest.raises(openai.InternalServerError):
            ask(organization, temper, secret)
    organization.assert_nothing_kept(secret)


def test_a_leak_is_found_and_not_repeated(keepless_server: Server) -> None:
    secret = secrets.token_hex(8)
    organization = keepless_server.organization()
    leak = keepless_server.data_dir / "leak.txt"
    leak.write_text(f"somebody wrote {secret} down")
    try:
        with pytest.raises(AssertionError, match=r"^kept: text 2 in data folder: data/leak.txt \(plain\)$") as caught:
            organization.assert_nothing_kept("not this, which is nowhere", secret)
    finally:
        leak.unlink()
    assert secret not in str(caught.value)


def test_the_fixture_looks_into_everything(keepless_server: Server) -> None:
    name = f"in the database {secrets.token_hex(8)}"
    organization = keepless_server.organization(name)
    with pytest.raises(AssertionError, match="in database rows: organization"):
        organization.assert_nothing_kept(name)
    with pytest.raises(AssertionError, match="in log and standard output: stdout"):
        organization.assert_nothing_kept(keepless_server.api_key)


def test_short_texts_are_refused(keepless_server: Server) -> None:
    with pytest.raises(ValueError, match="at least 12 letters"):
        keepless_server.assert_nothing_kept("too short")


def test_a_server_of_ones_own(tmp_path) -> None:
    with serve(tmp_path, models=[], settings={"log_origin": "tests.invalid/log"}) as server:
        assert ask(server, Temper.WELL, "hello").choices[0].message.content == server.upstream.say
        assert "server:process:started" in server.log
        server.assert_nothing_kept()
        folder = server.deployment.folder
        assert folder.exists()
    assert not folder.exists()
