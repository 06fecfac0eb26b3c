"""What the prover does with files, uploads and batches, as a customer would: one table of scenarios.

Holds: `Scenario`, `scenarios` (where the feature is on), `plain_scenarios` (on somebody else's deployment),
`refused_scenarios` (where it is off), `under_way`, `model_of`. Leaves out: calls (customer), what is under way when the
server is killed, turned off or late (feature_proof).

Each scenario deletes what it has made, or says nothing of it: after all of them nothing of the organization is kept but
the metadata of its batches.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from keepless.prover.customer import FORM, BrokenPromiseError, Customer, form, lines
from keepless.prover.upstream import Temper
from keepless.prover.wire import Manner

__all__ = ["FILE_BYTES", "Scenario", "model_of", "plain_scenarios", "refused_scenarios", "scenarios", "under_way"]

FILE_BYTES: Final = 256 * 1024  # the limit that the prover gives its own deployment
_NO_FILE: Final = "file-" + "a" * 24


@dataclass(frozen=True, slots=True)
class Scenario:
    """One story. Raises `BrokenPromiseError` when something is not as promised."""

    name: str
    play: Callable[[Customer], None]


def model_of(temper: Temper) -> str:
    """The model of batches that behaves so."""
    return f"batch-{temper}"


def scenarios() -> list[Scenario]:
    """Where the feature is on."""
    return [
        Scenario("files: kept, read, deleted", _file),
        Scenario("files: refused", _refused_files),
        Scenario("files: too large", _too_large),
        Scenario("files: left half-way", _left),
        Scenario("uploads: in parts", _parts),
        Scenario("uploads: cancelled", _cancelled_upload),
        Scenario("batches: refused", _refused_batches),
        Scenario("batches: done", lambda customer: _done(customer, model_of(Temper.WELL))),
        Scenario("batches: /responses", _responses),
        Scenario("batches: invalid lines", _invalid),
        Scenario("batches: upstream fails", _failing),
        Scenario("batches: cancelled", _cancelled),
        Scenario("batches: input deleted", _input_deleted),
    ]


def plain_scenarios(model: str) -> list[Scenario]:
    """What can be asked of any deployment with the feature."""
    return [
        Scenario("files: kept, read, deleted", _file),
        Scenario("files: refused", _refused_files),
        Scenario("files: left half-way", _left),
        Scenario("uploads: in parts", _parts),
        Scenario("uploads: cancelled", _cancelled_upload),
        Scenario("batches: refused", _refused_batches),
        Scenario("batches: any answer", lambda customer: _any_answer(customer, model)),
    ]


def refused_scenarios() -> list[Scenario]:
    """Where the feature is off."""
    return [Scenario("files and batches: off", _off)]


# -- files -----------------------------------------------------------------------------------------------------------


def _file(customer: Customer) -> None:
    data = f"{customer.mark('content')}\n".encode() * 50
    file_id = customer.upload(data)
    if customer.content(file_id) != data:
        raise BrokenPromiseError("the file is not the one that was sent")
    part = customer.call("GET", f"/files/{file_id}/content", headers={"range": "bytes=5-44"})
    if (part.status, part.body) != (206, data[5:45]):
        raise BrokenPromiseError("a range of a file is not what was sent")
    listed = customer.json("GET", f"/files?purpose=batch&{customer.mark('query name')}={customer.mark('query value')}")
    if file_id not in {one["id"] for one in listed["data"]}:
        raise BrokenPromiseError("a file is not listed")
    customer.delete(file_id)


def _refused_files(customer: Customer) -> None:
    mark = customer.mark

    def send(
        *statuses: int,
        fields: Mapping[str, str] | None = None,
        head: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> None:
        given = {"purpose": "batch", **(fields or {})}
        body = form(mark("content").encode(), name=mark("file name"), fields=given)
        customer.refused(customer.call("POST", "/files", body, kind=FORM, key=key, headers=head), *statuses)

    send(400, fields={"purpose": mark("purpose")})
    send(400, fields={mark("field"): mark("value")})
    send(400, fields={"expires_after[anchor]": mark("anchor"), "expires_after[seconds]": "3600"})
    send(400, fields={"store": "false"})
    send(400, head={"x-keepless-retention": "zero"})
    send(400, head={"x-keepless-retention": mark("privacy switch")})
    send(401, key=mark("API key"))
    send(415, head={"content-encoding": mark("encoding")})
    customer.refused(customer.call("GET", f"/files/{mark('file id')}"), 404)
    customer.refused(customer.call("DELETE", f"/files/{mark('file id')}"), 404)
    customer.refused(customer.call("GET", f"/files?purpose={mark('purpose')}"), 400)


def _too_large(customer: Customer) -> None:
    data = customer.mark("content").encode() * (FILE_BYTES // 40 + 1)
    body = form(data, name=customer.mark("file name"), fields={"purpose": "batch"})
    customer.refused(customer.call("POST", "/files", body, kind=FORM), 0, 413)


def _left(customer: Customer) -> None:
    body = form(customer.mark("content").encode() * 1000, name=customer.mark("file name"))
    customer.call("POST", "/files", body, kind=FORM, manner=Manner.HALF)
    customer.call("POST", "/files", body[:-3] + b"xx\n", kind=FORM)
    if customer.status not in (0, 400):
        raise BrokenPromiseError("the status is not what it should be")


def _upload(customer: Customer, size: int) -> str:
    asked = {"bytes": size, "filename": customer.mark("file name"), "mime_type": "text/jsonl", "purpose": "batch"}
    wrong = json.dumps({**asked, "purpose": customer.mark("purpose")}).encode()
    customer.refused(customer.call("POST", "/uploads", wrong), 400)
    return str(customer.json("POST", "/uploads", asked)["id"])


def _part(customer: Customer, upload_id: str, data: bytes) -> str:
    body = form(data, part="data", name=customer.mark("part name"))
    return str(customer.read(customer.call("POST", f"/uploads/{upload_id}/parts", body, kind=FORM))["id"])


def _parts(customer: Customer) -> None:
    first, second = (customer.mark(name).encode() * 20 for name in ("first part", "second part"))
    upload_id = _upload(customer, len(first) + len(second))
    ids = [_part(customer, upload_id, data) for data in (first, second)]
    file = customer.json("POST", f"/uploads/{upload_id}/complete", {"part_ids": ids})["file"]
    if customer.content(file["id"]) != first + second:
        raise BrokenPromiseError("the file is not the one that was sent")
    customer.kept = True
    customer.delete(file["id"])


def _cancelled_upload(customer: Customer) -> None:
    data = customer.mark("part").encode() * 20
    upload_id = _upload(customer, len(data))
    part_id = _part(customer, upload_id, data)
    customer.json("POST", f"/uploads/{upload_id}/cancel")
    body = json.dumps({"part_ids": [part_id]}).encode()
    customer.refused(customer.call("POST", f"/uploads/{upload_id}/complete", body), 400, 404)


# -- batches ---------------------------------------------------------------------------------------------------------


def _refused_batches(customer: Customer) -> None:
    mark = customer.mark
    asked = {"input_file_id": _NO_FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    for status, more in (
        (400, {"endpoint": mark("endpoint")}),
        (400, {"completion_window": mark("window")}),
        (400, {"metadata": {mark("metadata name"): 1}}),
        (400, {"metadata": mark("metadata")}),
        (400, {mark("parameter"): 1}),
        (400, {"store": False}),
        (404, {"input_file_id": mark("file id"), "metadata": {mark("metadata name"): mark("metadata value")}}),
        (404, {"metadata": {mark("metadata name"): mark("metadata value")}}),
    ):
        customer.refused(customer.call("POST", "/batches", json.dumps({**asked, **more}).encode()), status)
    customer.refused(customer.call("POST", "/batches", json.dumps(asked).encode()[:-9]), 400)
    customer.refused(customer.call("GET", f"/batches/{mark('batch id')}"), 404)
    customer.refused(customer.call("POST", f"/batches/{mark('batch id')}/cancel"), 404)


def _done(customer: Customer, model: str) -> None:
    data, ids = lines(customer, [model] * 5)
    file_id = customer.upload(data)
    batch = customer.ended(customer.batch(file_id), "completed")
    customer.delete(file_id)  # its results stay
    output, errors = customer.each_once(batch, ids)
    if errors or any(line["response"]["status_code"] != 200 for line in output.values()):
        raise BrokenPromiseError("lines that should succeed do not")
    customer.delete(batch["output_file_id"])


def _responses(customer: Customer) -> None:
    data, ids = lines(customer, [model_of(Temper.WELL), model_of(Temper.BAD_REQUEST)], "/v1/responses")
    file_id = customer.upload(data)
    batch = customer.ended(customer.batch(file_id, "/v1/responses"), "completed")
    output, errors = customer.each_once(batch, ids)
    if (len(output), len(errors)) != (1, 1):
        raise BrokenPromiseError("lines that should succeed do not")
    customer.delete(file_id, batch["output_file_id"], batch["error_file_id"])


def _invalid(customer: Customer) -> None:
    data, _ = lines(customer, [model_of(Temper.WELL), customer.mark("model")])
    first = data.splitlines()[0]
    bad = [
        data.rstrip(),
        first,  # a custom_id that stands there already
        first[:-20],
        first.replace(b'"method"', b'"%b"' % customer.mark("member").encode()),
        first.replace(b"/v1/chat/completions", customer.mark("url").encode()),
        b"\xff" + customer.mark("no text").encode(),
    ]
    file_id = customer.upload(b"\n".join(bad))
    batch = customer.ended(customer.batch(file_id), "failed")
    if not batch["errors"]["data"] or batch["output_file_id"] or batch["error_file_id"]:
        raise BrokenPromiseError("a batch that cannot be run does not say why")
    told = json.dumps({**batch, "metadata": None}).encode()
    if customer.holds_marker(told):
        raise BrokenPromiseError("a refusal repeats what the client sent")
    customer.delete(file_id)


def _failing(customer: Customer) -> None:
    tempers = (Temper.BAD_REQUEST, Temper.BROKEN, Temper.CUT, Temper.GARBAGE, Temper.NOT_JSON, Temper.LATE)
    data, ids = lines(customer, [model_of(temper) for temper in (*tempers, Temper.WELL)])
    file_id = customer.upload(data)
    batch = customer.ended(customer.batch(file_id), "completed")
    output, errors = customer.each_once(batch, ids)
    if (len(output), len(errors)) != (1, len(tempers)):
        raise BrokenPromiseError("lines that should fail do not")
    customer.delete(file_id, batch["output_file_id"], batch["error_file_id"])


def under_way(customer: Customer) -> tuple[str, str, list[str]]:
    """A batch of which two lines are done and two are asked and not answered."""
    data, ids = lines(customer, [model_of(Temper.WELL)] * 2 + [model_of(Temper.HELD)] * 2)
    file_id = customer.upload(data)
    batch_id = customer.batch(file_id)
    customer.until(batch_id, done=2)
    return file_id, batch_id, ids


def _cancelled(customer: Customer) -> None:
    file_id, batch_id, ids = under_way(customer)
    customer.json("POST", f"/batches/{batch_id}/cancel")
    batch = customer.ended(batch_id, "cancelled")
    output, errors = customer.each_once(batch, ids)
    if (len(output), len(errors)) != (2, 2):
        raise BrokenPromiseError("what was done before a cancellation is not delivered")
    customer.delete(file_id, batch["output_file_id"], batch["error_file_id"])


def _input_deleted(customer: Customer) -> None:
    file_id, batch_id, ids = under_way(customer)
    customer.delete(file_id)
    batch = customer.ended(batch_id, "cancelled")
    output, errors = customer.results(batch)
    if len(output) != 2 or errors or not set(output) < set(ids):
        raise BrokenPromiseError("what was done before a cancellation is not delivered")
    customer.delete(batch["output_file_id"])


def _any_answer(customer: Customer, model: str) -> None:
    """Whatever the model of somebody else's deployment answers."""
    data, ids = lines(customer, [model] * 2)
    file_id = customer.upload(data)
    batch = customer.ended(customer.batch(file_id), "completed", "failed")
    if batch["status"] == "completed":
        customer.each_once(batch, ids)
    customer.delete(file_id, batch["output_file_id"], batch["error_file_id"])


# -- off -------------------------------------------------------------------------------------------------------------


def _off(customer: Customer) -> None:
    mark = customer.mark
    body = form(mark("content").encode(), name=mark("file name"), fields={"purpose": "batch"})
    customer.refused(customer.call("POST", "/files", body, kind=FORM), 403)
    upload = {"bytes": 1, "filename": mark("file name"), "mime_type": "text/jsonl", "purpose": "batch"}
    customer.refused(customer.call("POST", "/uploads", json.dumps(upload).encode()), 403)
    metadata = {mark("metadata name"): mark("metadata value")}
    batch = {"input_file_id": _NO_FILE, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    customer.refused(customer.call("POST", "/batches", json.dumps({**batch, "metadata": metadata}).encode()), 403)
