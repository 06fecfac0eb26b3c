"""One customer of a deployment, as the prover plays it: calls with a key of the project, files, batches, what is kept.

Holds: `Customer`, `BrokenPromiseError` (a promise that was not held, in fixed words), `form` and `lines` (bodies).
Leaves out: what is asked in which order (feature_cases), sending itself (wire).
"""

import http.client
import json
import secrets
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from keepless.errors import KeeplessError
from keepless.prover.check import told_of
from keepless.prover.run import Account, Run
from keepless.prover.wire import Answer, Manner, Request, begin, send

__all__ = ["FORM", "BrokenPromiseError", "Customer", "form", "lines"]

_BOUNDARY: Final = secrets.token_hex(12)
FORM: Final = f"multipart/form-data; boundary={_BOUNDARY}"
_JSON: Final = "application/json"
_ENDS_S: Final = 120.0
_LOOK_S: Final = 0.1
_TERMINAL: Final = frozenset({"completed", "failed", "expired", "cancelled"})


class BrokenPromiseError(KeeplessError):
    """Something is not as it was promised. `says`: which, in words of ours."""

    def __init__(self, says: str) -> None:
        super().__init__(says)
        self.says: Final = says


class Customer:
    """See the module. Every call notes its status in `status`."""

    def __init__(self, run: Run, url: str, account: Account, case: str) -> None:
        self._run: Final = run
        self._url: Final = url
        self.account: Final = account
        self.mark: Final = run.mark(case, account.setting.name)
        self.status = 0
        self.kept = False

    # -- calls -------------------------------------------------------------------------------------------------------

    def call(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        kind: str = _JSON,
        key: str | None = None,
        manner: Manner = Manner.WHOLE,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One call below `/v1`, with a marker in its head."""
        head = {"user-agent": self.mark("user agent"), "content-type": kind, **(headers or {})}
        answer = send(self._url, key or self.account.api_key, Request(f"/v1{path}", body, head, manner, method))
        self.status = answer.status
        return answer

    def begin(self, path: str, body: bytes) -> http.client.HTTPConnection:
        """A call that stays under way; whoever closes it leaves."""
        head = {"user-agent": self.mark("user agent"), "content-type": _JSON}
        return begin(self._url, self.account.api_key, Request(f"/v1{path}", body, head))

    def json(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """One call that must succeed."""
        answer = self.call(method, path, b"" if body is None else json.dumps(body).encode())
        return self.read(answer)

    def read(self, answer: Answer) -> dict[str, Any]:
        """The JSON object of an answer that must be a success."""
        if answer.status != 200:
            raise BrokenPromiseError("the status is not what it should be")
        try:
            found = json.loads(answer.body)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise BrokenPromiseError("the answer is no JSON object")
        return found

    def refused(self, answer: Answer, *statuses: int) -> None:
        """A refusal, which keeps nothing and says so."""
        if answer.status not in statuses:
            raise BrokenPromiseError("the status is not what it should be")
        if answer.status and answer.retention != "none":
            raise BrokenPromiseError("the retention header is not true")
        if self.holds_marker(answer.body):
            raise BrokenPromiseError("a refusal repeats what the client sent")

    def holds_marker(self, data: bytes) -> bool:
        """Whether any marker of the run stands there."""
        return bool(self._run.search.within(data))

    # -- files -------------------------------------------------------------------------------------------------------

    def upload(self, data: bytes, purpose: str = "batch", data_class: str = "batch_input") -> str:
        """A file under a marked name; its id."""
        name = self.mark("file name")
        answer = self.call("POST", "/files", form(data, name=name, fields={"purpose": purpose}), kind=FORM)
        found = self.read(answer)
        object_id = told_of(answer, data_class)
        if object_id is None:
            raise BrokenPromiseError("the retention header is not true")
        if self.kept_as(object_id) != data_class:
            raise BrokenPromiseError("what the answer says is kept is not what is listed")
        if found["filename"] != name or found["bytes"] != len(data):
            raise BrokenPromiseError("the file is not the one that was sent")
        self.kept = True
        return str(found["id"])

    def content(self, file_id: str) -> bytes:
        """What a file holds."""
        answer = self.call("GET", f"/files/{file_id}/content")
        if answer.status != 200 or not answer.whole:
            raise BrokenPromiseError("a file cannot be read")
        return answer.body

    def delete(self, *file_ids: str | None) -> None:
        """Delete files: gone means gone."""
        for file_id in file_ids:
            if file_id is None:
                continue
            if self.json("DELETE", f"/files/{file_id}").get("deleted") is not True:
                raise BrokenPromiseError("a file is not deleted when its deletion has answered")
            for path in (f"/files/{file_id}", f"/files/{file_id}/content"):
                self.refused(self.call("GET", path), 404)

    def kept_as(self, object_id: str) -> str | None:
        """The class that an object is listed under; None: it is not listed."""
        return self._run.listed(self._url, self.account, "class").get(object_id)

    def kept_now(self) -> list[str]:
        """The classes of everything that is kept of the organization."""
        return sorted(self._run.listed(self._url, self.account, "class").values())

    # -- batches -----------------------------------------------------------------------------------------------------

    def batch(self, file_id: str, endpoint: str = "/v1/chat/completions") -> str:
        """A new batch with marked metadata; its id."""
        metadata = {self.mark("metadata name"): self.mark("metadata value")}
        body = {
            "input_file_id": file_id,
            "endpoint": endpoint,
            "completion_window": "24h",
            "metadata": metadata,
        }
        made = self.json("POST", "/batches", body)
        if made["metadata"] != metadata:
            raise BrokenPromiseError("the batch is not the one that was sent")
        return str(made["id"])

    def until(self, batch_id: str, *, done: int | None = None) -> dict[str, Any]:
        """A batch when it has ended (or, with `done`, as soon as so many of its lines are). The counts only grow."""
        until, before = time.monotonic() + _ENDS_S, (0, 0)
        while True:
            found = self.json("GET", f"/batches/{batch_id}")
            counts = found["request_counts"]
            now = (counts["completed"], counts["failed"])
            if now[0] < before[0] or now[1] < before[1]:
                raise BrokenPromiseError("the counts of a batch went back")
            before = now
            if found["status"] in _TERMINAL or (done is not None and sum(now) >= done):
                return found
            if time.monotonic() > until:
                raise BrokenPromiseError("a batch does not come to its end")
            time.sleep(_LOOK_S)

    def results(self, batch: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Lines of the output and of the error file, by their custom ids. Each of these stands once in them."""
        found: list[dict[str, Any]] = []
        for file_id in (batch["output_file_id"], batch["error_file_id"]):
            data = b"" if file_id is None else self.content(file_id)
            each = [json.loads(line) for line in data.splitlines()]
            found.append({line["custom_id"]: line for line in each})
            if len(found[-1]) != len(each):
                raise BrokenPromiseError("a custom_id stands twice in the results")
        output, errors = found
        if output.keys() & errors.keys():
            raise BrokenPromiseError("a custom_id stands twice in the results")
        counts = batch["request_counts"]
        if (counts["completed"], counts["failed"]) != (len(output), len(errors)):
            raise BrokenPromiseError("the counts of a batch are not those of its results")
        return output, errors

    def each_once(self, batch: Mapping[str, Any], sent: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same; what was sent is there, each once."""
        output, errors = self.results(batch)
        if {*output, *errors} != set(sent):
            raise BrokenPromiseError("a custom_id is missing in the results")
        return output, errors

    def ended(self, batch_id: str, *statuses: str) -> dict[str, Any]:
        """A batch that must end so."""
        found = self.until(batch_id)
        if found["status"] not in statuses:
            raise BrokenPromiseError("a batch did not end as it should")
        return found


def form(data: bytes, *, part: str = "file", name: str = "", fields: Mapping[str, str] | None = None) -> bytes:
    """A form (`FORM`) with a file in it."""
    parts = [
        f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in (fields or {}).items()
    ]
    head = f'--{_BOUNDARY}\r\ncontent-disposition: form-data; name="{part}"; filename="{name}"\r\n\r\n'
    return b"".join([*parts, head.encode(), data, f"\r\n--{_BOUNDARY}--\r\n".encode()])


def lines(customer: Customer, models: Sequence[str], url: str = "/v1/chat/completions") -> tuple[bytes, list[str]]:
    """The input of a batch with markers in each part of each line, and its custom ids."""
    mark, ids, made = customer.mark, list[str](), list[str]()
    for model in models:
        ids.append(mark("custom_id"))
        body: dict[str, Any] = {"model": model, "user": mark("user")}
        if url.endswith("/responses"):
            body |= {"instructions": mark("instructions"), "input": mark("input"), "max_output_tokens": 16}
        else:
            body |= {"messages": [{"role": "user", "content": mark("user message")}], "max_tokens": 16}
        made.append(json.dumps({"custom_id": ids[-1], "method": "POST", "url": url, "body": body}))
    return "\n".join(made).encode() + b"\n", ids
