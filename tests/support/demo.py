"""A deployment that looks lived in, for pictures of the console: keys, requests, failures, files, a hold, changes."""

import json
import urllib.error
import urllib.request

from tests.support.governed import eventually
from tests.support.serve import Served
from tests.support.upstream import Behaviour

LINES = "".join(
    json.dumps(
        {
            "custom_id": f"ticket-{at}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": Behaviour.OK.value, "messages": [{"role": "user", "content": "Sum this up."}]},
        }
    )
    + "\n"
    for at in range(40)
).encode()


def seed(served: Served) -> None:
    """Fill a fresh deployment."""
    for name in ("Production", "Evaluation"):
        project = served.ask("POST", "/organization/projects", {"name": name})["id"]
        for key in ("backend", "nightly job"):
            served.ask("POST", f"/organization/projects/{project}/api_keys", {"name": key})
    served.ask("POST", "/organization/users", {"email": "dana@example.com", "role": "developer"})
    served.ask("POST", "/organization/users", {"email": "ravi@example.com", "role": "reader"})
    for at in range(24):
        ask(served, "error-400" if at % 9 == 4 else Behaviour.OK.value)
    for behaviour in (Behaviour.CUT_JSON, Behaviour.BAD_JSON, Behaviour.ERROR_500, Behaviour.CUT_HEAD):
        ask(served, behaviour.value)
    for name in ("questions-november.jsonl", "evaluation-set-3.jsonl"):
        upload(served, name, b'{"custom_id":"1"}\n' * 4000)
    batch(served, upload(served, "support-tickets.jsonl", LINES))
    served.ask("POST", "/organization/data_controls", {"retention_days": {"reliability_log": 14}})
    served.ask("POST", "/organization/data_controls", {"fine_tuning": "disabled"})
    kept = served.ask("GET", "/organization/retained_objects")["data"]
    served.ask(
        "POST",
        "/organization/legal_holds",
        {
            "organization_id": served.told["organization_id"],
            "reason": "litigation",
            "authority": "court_order",
            "reference": "1:26-cv-00417",
            "review_at": kept[0]["created_at"] + 90 * 86400,
            "object_id": kept[0]["id"],
        },
        key="operator_key",
    )
    served.ask("DELETE", f"/organization/retained_objects/{kept[1]['id']}")
    opening = {"reason": "reliability", "reference": "ticket 4711", "minutes": 30}
    whose = {"organization_id": served.told["organization_id"]}
    served.ask("POST", f"/organization/captures/{kept[2]['id']}/open_requests", opening | whose, key="operator_key")


def batch(served: Served, file_id: str) -> None:
    """One that is begun, and ended."""
    order = {"input_file_id": file_id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    made = served.ask("POST", "/batches", order, key="api_key")
    eventually(lambda: served.ask("GET", f"/batches/{made['id']}", key="api_key")["status"] == "completed", seconds=60)


def ask(served: Served, model: str) -> None:
    """One request, however it ends."""
    body = {"model": model, "messages": [{"role": "user", "content": "Say hello."}]}
    try:
        served.ask("POST", "/chat/completions", body, key="api_key")
    except urllib.error.HTTPError as refused:
        refused.close()


def upload(served: Served, name: str, data: bytes) -> str:
    """A file for batches."""
    edge = "edge0of0the0form"
    parts = [
        f'--{edge}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n',
        f'--{edge}\r\ncontent-disposition: form-data; name="file"; filename="{name}"\r\n\r\n',
    ]
    body = "".join(parts).encode() + data + f"\r\n--{edge}--\r\n".encode()
    headers = {
        "authorization": f"Bearer {served.api_key}",
        "content-type": f"multipart/form-data; boundary={edge}",
    }
    request = urllib.request.Request(f"{served.base_url}/files", body, headers, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["id"])
