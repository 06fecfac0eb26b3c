"""Nobody sees another organization's anything: every page with ids, asked with somebody else's ids of everything."""

import json
import re
from typing import Any

from keepless.accounts.principal import AdminPrincipal
from keepless.accounts.roles import Role
from keepless.batches.store import create
from keepless.batches.values import BatchEndpoint, NewBatch
from keepless.clock import DAY_MS
from keepless.console.services import Visitor
from keepless.console.table import ROWS
from keepless.governance.organizations import FOREVER_MS
from keepless.ids import Id, Prefix, mint
from keepless.incidents.states import CaseState, Signal
from keepless.incidents.tables import abuse_case
from keepless.policy.data_class import DataClass
from keepless.receipts.log import Log
from tests.support.asgi import call
from tests.support.console import TOKEN, Console

FORM = {
    "confirm": "delete",
    "name": "theirs",
    "role": "reader",
    "reason": "reliability",
    "reference": "t-1",
    "minutes": "5",
    "hours": "5",
    "endpoint": "/v1/chat/completions",
    "base": "base",
    "of.batch": "yes",
}
CONFIRMED = {"archive": "archive", "remove": "remove", "revoke": "revoke", "cancel": "cancel", "release": "release"}


def uploaded(here: Console, purpose: str) -> str:
    headers = {
        "host": "here",
        "origin": "http://here",
        "x-csrf-token": TOKEN,
        "x-file-name": "name",
        "x-file-purpose": purpose,
        "x-file-project": str(here.platform.project_id),
    }
    return str(json.loads(call(here.app, "POST", "/files/upload", headers, b"{}\n").body)["id"])


def everything(here: Console) -> dict[str, str]:
    """One of each thing of the first organization, by the name that a path has for it."""
    platform, own = here.platform, here.platform.organization_id
    owner = platform.deployment.owner
    object_id = platform.put().id
    gone = platform.put().id
    here.done(f"/kept/{gone}/delete", {"confirm": "delete"})
    receipt = re.search(r"/receipts/(rcpt_[a-z2-7]{24})", here.page("/receipts"))
    assert receipt is not None
    dataset, batch_file = uploaded(here, "fine-tune"), uploaded(here, "batch")
    form = {"project": platform.project_id, "file": dataset, "base": "base", "name": "mine"}
    job = re.search(r"ftjob-[a-z2-7]{24}", here.done("/fine-tunings", form))
    assert job is not None
    new = NewBatch(
        organization_id=own,
        project_id=platform.project_id,
        key_id=mint(Prefix.API_KEY),
        endpoint=BatchEndpoint.CHAT,
        input_file_id=Id(batch_file),
        window_ms=DAY_MS,
    )
    values: dict[str, Any] = {"id": mint(Prefix.CASE), "organization_id": own, "state": CaseState.SUSPECTED}
    values |= {"signal": Signal.MANY_KEYS, "refusals": 7, "opened_at": 1, "captured_total": 0, "captured": 0}
    with platform.services.db.write() as tx:
        batch, _ = create(tx, new, platform.rig.clock.now_ms())
        tx.execute(abuse_case.insert().values(values))
    platform.put(data_class=DataClass.BATCH_OUTPUT)
    change = {"batch": "disabled", "existing": "destroy", "confirm": "turn off"}
    purge = re.search(r"purge_[a-z2-7]{24}", here.done("/controls", change))
    assert purge is not None
    here.done("/controls", {"batch": "enabled"})
    hold = platform.json(
        "POST",
        "/organization/legal_holds",
        {
            "organization_id": own,
            "reason": "litigation",
            "authority": "court_order",
            "reference": "docket 1",
            "review_at": 1_900_000_000,
        },
        key="operator",
    )["id"]
    here.done(f"/captures/{object_id}/openings", FORM)
    return {
        "project_id": platform.project_id,
        "key_id": platform.services.access.api_keys(own)[0].id,
        "member_id": platform.services.access.members(own)[0].id,
        "invite_id": platform.services.people.invite(owner, own, email="i@example.com", role=Role.READER).record.id,
        "object_id": object_id,
        "receipt_id": receipt[1],
        "hold_id": hold,
        "opening_id": here.services.openings.list(own)[0].id,
        "case_id": values["id"],
        "purge_id": purge[0],
        "file_id": dataset,
        "batch_id": batch.id,
        "job_id": job[0],
        "index": str(newest(here.services.log, here)),
    }


def newest(log: Log, here: Console) -> int:
    with here.services.db.read() as tx:
        return log.entries(tx, organization_id=here.platform.organization_id, limit=1)[0].index


def test_another_organizations_ids_are_nobodys(here: Console) -> None:
    mine = everything(here)
    other = here.platform.other()
    theirs = AdminPrincipal(Id("user_y"), Id(other["id"]), Role.OWNER, FOREVER_MS)
    before = state(here)
    here.who[:] = [Visitor(theirs, "somebody else", TOKEN)]
    for row in ROWS:
        names = re.findall(r"{(\w+)}", row.path)
        form = {**FORM, "organization": here.platform.organization_id, "project": mine["project_id"]}
        form["confirm"] = CONFIRMED.get(row.path.rsplit("/", 1)[-1], "delete")
        path = re.sub(r"{(\w+)}", lambda found: mine[found[1]], row.path)
        answer = here.get(path) if row.method == "GET" else here.post(path, form)
        if names:
            assert answer.status in (403, 404), (row.method, row.path, answer.status)
            assert answer.status == 404 or row.path.startswith(("/cases", "/holds")), (row.method, row.path)
        for name, known in mine.items():
            if name != "index":
                assert known in path or known.encode() not in answer.body, row.path
    asked = ("/controls", "/files", "/batches", "/fine-tunings", "/kept", "/usage", "/audit", "/controls/history")
    for path in asked:
        answer = here.get(f"{path}?project={mine['project_id']}&organization={here.platform.organization_id}")
        shown = answer.body.replace(mine["project_id"].encode(), b"")
        assert all(known.encode() not in shown for name, known in mine.items() if name != "index"), path
    here.sign_in(Role.OWNER)
    assert state(here) == before


def state(here: Console) -> list[Any]:
    """What an owner has, as far as another could have changed it."""
    own, services = here.platform.organization_id, here.services
    return [
        [one.id for one in services.access.api_keys(own)],
        [(one.id, one.role) for one in services.access.members(own)],
        [one.id for one in services.people.invites(own)],
        [(one.id, one.name, one.archived_at_ms) for one in services.organizations.projects(own, archived=True)],
        [(one.id, one.state) for one in services.openings.list(own)],
        [(one.id, one.state) for one in services.cases.list(own)],
        [(one.id, one.released_at) for one in services.holds.list(own, after=None, limit=10)],
        services.controls.state(own)["epoch"],
        newest(services.log, here),
    ]
