"""Usage by kind in OpenAI's shapes, on both databases."""

from typing import Any

import msgspec
import pytest

from keepless.config import Endpoint
from keepless.db import Database
from keepless.ids import Id, Prefix, mint
from keepless.usage import results
from keepless.usage.ledger import Ledger
from keepless.usage.record import Record
from keepless.usage.sums import Group, UsageQuestion, Width
from tests.support.usage import KEY, MODEL, ORGANIZATION, PROJECT, record

DAY = 86_400_000
START = 20_000 * DAY
ASKED = UsageQuestion(ORGANIZATION, START, START + DAY)


def write(database: Database, *records: Record) -> None:
    ledger = Ledger(database)
    for each in records:
        ledger.add(each)
    assert ledger.flush()


def told(page: Any) -> list[dict[str, Any]]:
    return [result for bucket in msgspec.to_builtins(page, enc_hook=str)["data"] for result in bucket["results"]]


def of_each_kind() -> list[Record]:
    silent = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0}
    return [
        record(START),
        record(START, endpoint=Endpoint.RESPONSES),
        record(START, endpoint=Endpoint.INPUT_TOKENS, **silent),
        record(START, endpoint=Endpoint.EMBEDDINGS, model=Id("minilm"), prompt_tokens=7, completion_tokens=0),
        record(START, endpoint=Endpoint.SPEECH, model=Id("flite"), prompt_tokens=40, completion_tokens=0, audio_ms=900),
        record(START, endpoint=Endpoint.TRANSCRIPTIONS, model=Id("whisper"), audio_ms=1_200, **silent),
        record(START, endpoint=Endpoint.TRANSLATIONS, model=Id("whisper"), audio_ms=300, **silent),
    ]


def test_each_kind_has_its_own_and_only_its_own(database: Database) -> None:
    write(database, *of_each_kind())
    whole = {"project_id": None, "api_key_id": None, "model": None, "user_id": None}
    (embeddings,) = told(results.embeddings(database, ASKED))
    assert embeddings == {
        "object": "organization.usage.embeddings.result",
        "input_tokens": 7,
        "num_model_requests": 1,
        **whole,
    }
    (speeches,) = told(results.speeches(database, ASKED))
    assert speeches == {
        "object": "organization.usage.audio_speeches.result",
        "characters": 40,
        "num_model_requests": 1,
        **whole,
    }
    (heard,) = told(results.transcriptions(database, ASKED))
    assert heard == {
        "object": "organization.usage.audio_transcriptions.result",
        "seconds": 2,  # 1.5, rounded up once
        "num_model_requests": 2,
        **whole,
    }
    (completions,) = told(results.completions(database, ASKED))
    assert (completions["num_model_requests"], completions["input_tokens"]) == (2, 20)
    page = results.nothing(database, ASKED)
    assert [bucket.results for bucket in page.data] == [[]]


@pytest.mark.parametrize("kind", [results.embeddings, results.speeches, results.transcriptions])
def test_each_kind_is_grouped_filtered_and_paged(database: Database, kind: Any) -> None:
    mine = {
        results.embeddings: Endpoint.EMBEDDINGS,
        results.speeches: Endpoint.SPEECH,
        results.transcriptions: Endpoint.TRANSLATIONS,
    }
    endpoint, other_project, other_key = mine[kind], mint(Prefix.PROJECT), mint(Prefix.API_KEY)
    write(
        database,
        record(START, endpoint=endpoint),
        record(START + 3_600_000, endpoint=endpoint, project_id=other_project),
        record(START + 7_200_000, endpoint=endpoint, key_id=other_key, model=Id("zz")),
    )

    def ask(**values: Any) -> list[tuple[Any, ...]]:
        page = kind(database, UsageQuestion(ORGANIZATION, START, START + DAY, **values))
        names = ("num_model_requests", "project_id", "api_key_id", "model")
        return [tuple(one[name] for name in names) for one in told(page)]

    assert ask() == [(3, None, None, None)]
    assert sorted(ask(group_by=frozenset({Group.PROJECT}))) == sorted(
        [(2, PROJECT, None, None), (1, other_project, None, None)]
    )
    assert sorted(ask(group_by=frozenset({Group.KEY, Group.MODEL}))) == sorted(
        [(2, None, KEY, MODEL), (1, None, other_key, "zz")]
    )
    assert ask(project_ids=(other_project,)) == [(1, None, None, None)]
    assert ask(key_ids=(other_key,)) == [(1, None, None, None)]
    assert ask(models=("zz",)) == [(1, None, None, None)]
    assert ask(nobodys=True) == []
    first = kind(database, UsageQuestion(ORGANIZATION, START, START + DAY, Width.HOUR, limit=2))
    assert (len(told(first)), first.has_more) == (2, True)
    after = kind(database, UsageQuestion(ORGANIZATION, START, START + DAY, Width.HOUR, limit=2, page=first.next_page))
    assert len(told(after)) == 1
