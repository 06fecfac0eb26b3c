"""Fine-tunings as pages: begun, watched, paused, deleted with receipts, and off when the feature is."""

import json
import re

import pytest

from keepless.accounts.roles import Role
from keepless.ids import Id
from keepless.tuning import transitions
from keepless.tuning.faults import Fault, FaultCode, FaultFile
from keepless.tuning.values import AUTO, FailCode, Metrics, TuningState
from tests.support.asgi import call
from tests.support.console import TOKEN, Console, text_of

NAME = "my-model"


def dataset(here: Console, name: str = "%3Cb%3Eset.jsonl") -> str:
    headers = {
        "host": "here",
        "origin": "http://here",
        "x-csrf-token": TOKEN,
        "x-file-name": name,
        "x-file-purpose": "fine-tune",
        "x-file-project": str(here.platform.project_id),
    }
    answer = call(here.app, "POST", "/files/upload", headers, b"{}\n")
    assert answer.status == 200, answer.body
    return str(json.loads(answer.body)["id"])


def begun(here: Console, **changed: str) -> Id:
    form = {"project": here.platform.project_id, "file": dataset(here), "base": "base", "name": NAME, **changed}
    where = here.done("/fine-tunings", form)
    found = re.search(r"/fine-tunings/(ftjob-[a-z2-7]{24})", where)
    assert found is not None, where
    return Id(found[1])


def running(here: Console, steps: int = 6) -> Id:
    """One that is being trained, with a curve."""
    job_id, now = begun(here), here.platform.rig.clock.now_ms()
    with here.platform.services.db.write() as tx:
        assert transitions.queue(tx, job_id, 40, AUTO.chosen(40), now)
        taken = transitions.take(tx, job_id, now, None)
        assert taken is not None
        for step in range(1, steps + 1):
            metrics = Metrics(loss=4.0 / step, valid_loss=5.0 / step if step % 2 else None)
            transitions.advance(tx, taken, now + step, step=step, total=20, tokens=100 * step, metrics=metrics)
    return job_id


def test_one_is_begun_from_a_dataset(here: Console) -> None:
    assert "No dataset" in text_of(here.page("/fine-tunings"))
    job_id = begun(here, epochs="3")
    page = here.page("/fine-tunings")
    assert job_id in page and f"{NAME}-" in page and "<b>set" not in page
    page = here.page(f"/fine-tunings/{job_id}")
    assert "validating files" in text_of(page) and 'hx-trigger="every 3s"' in page
    assert "<html" not in here.page(f"/fine-tunings/{job_id}/part")
    form = {"project": here.platform.project_id, "file": dataset(here), "base": "base", "name": NAME}
    wrongs = ({"name": "<b>"}, {"base": "else"}, {"file": ""}, {"epochs": "51"}, {"project": ""})
    for wrong in wrongs:
        assert here.post("/fine-tunings", {**form, **wrong}).status in (400, 404), wrong


def test_its_loss_is_a_chart_and_a_table(here: Console) -> None:
    job_id = running(here)
    page = here.page(f"/fine-tunings/{job_id}")
    told = text_of(page)
    assert "Steps 6 of 20" in told and "Loss 0.667 began at 4.000" in told and "Validation loss" in told
    found = re.search(r'data-chart="([^"]+)"', page)
    assert found is not None
    chart = json.loads(found[1].replace("&#34;", '"').replace("&quot;", '"'))
    assert chart["data"][0] == [1, 2, 3, 4, 5, 6]
    assert chart["data"][2][1] is None


def test_a_long_curve_keeps_its_page_small(here: Console) -> None:
    job_id = running(here, steps=1_000)
    assert len(here.page(f"/fine-tunings/{job_id}")) < 150_000


def test_it_is_paused_resumed_and_cancelled(here: Console) -> None:
    job_id = running(here)
    here.done(f"/fine-tunings/{job_id}/pause")
    assert "paused" in text_of(here.page(f"/fine-tunings/{job_id}"))
    here.done(f"/fine-tunings/{job_id}/resume")
    here.done(f"/fine-tunings/{job_id}/cancel")
    assert "cancelled" in text_of(here.page(f"/fine-tunings/{job_id}"))
    assert here.post(f"/fine-tunings/{job_id}/pause").status == 400
    here.sign_in(Role.READER)
    page = here.page(f"/fine-tunings/{job_id}")
    assert "/delete" not in page and "<form" not in page.split("<main")[1]
    for act in ("pause", "resume", "cancel", "delete"):
        assert here.post(f"/fine-tunings/{job_id}/{act}", {"confirm": "delete"}).status == 403


def test_what_was_wrong_with_a_dataset_is_said_without_it(here: Console) -> None:
    job_id = begun(here)
    fault = Fault(FaultFile.TRAINING, 3, FaultCode.INVALID_JSON)
    with here.platform.services.db.write() as tx:
        now = here.platform.rig.clock.now_ms()
        assert transitions.fail(tx, job_id, FailCode.TRAINING_FILE, now, faults=[fault], found=1)
    told = text_of(here.page(f"/fine-tunings/{job_id}"))
    assert "failed" in told and "training file, line 3:" in told


def test_it_is_deleted_with_a_receipt(here: Console) -> None:
    job_id = begun(here)
    assert NAME in here.page(f"/fine-tunings/{job_id}/delete")
    assert here.post(f"/fine-tunings/{job_id}/delete").status == 400
    where = here.done(f"/fine-tunings/{job_id}/delete", {"confirm": "delete"})
    page = here.page(where)
    assert "are destroyed" in text_of(page) and 'href="/receipts/rcpt_' in page
    assert here.get(f"/fine-tunings/{job_id}").status == 404
    assert "No fine-tuning" in text_of(here.page("/fine-tunings"))


@pytest.mark.parametrize("role", [Role.DEVELOPER, Role.READER])
def test_when_the_feature_is_off_owners_alone_see_what_is_left(here: Console, role: Role) -> None:
    job_id = begun(here)
    here.done("/controls", {"fine_tuning": "disabled", "existing": "keep", "confirm": "turn off"})
    page = here.page("/fine-tunings")
    assert "Fine-tuning is off" in text_of(page) and job_id in page
    assert here.get(f"/fine-tunings/{job_id}").status == 200
    form = {"project": here.platform.project_id, "file": "", "base": "base", "name": NAME}
    assert here.post("/fine-tunings", form).status == 403
    here.sign_in(role)
    page = here.page("/fine-tunings")
    assert "Fine-tuning is off" in text_of(page) and job_id not in page
    assert here.get(f"/fine-tunings/{job_id}").status == 403


def test_another_organizations_is_not_there(here: Console) -> None:
    job_id = begun(here)
    other = here.platform.other()
    assert here.get(f"/fine-tunings?project={other['project_id']}").status == 404
    assert here.services.tunings.get(job_id, here.platform.organization_id, None).job.state is TuningState.VALIDATING
    here.sign_in(Role.OPERATOR)
    assert here.get(f"/fine-tunings/{job_id}").status == 403
