"""Turning batch off while batches run: cancelled, forbidden, and (when asked for) destroyed with receipts."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.acceptance.test_sdk_batches import CHAT, line, upload
from tests.support.serve import Served, serve, upstream_models
from tests.support.upstream import Behaviour, MockUpstream


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with MockUpstream() as upstream:
        folder = tmp_path_factory.mktemp("served")
        with serve(folder, upstream_models(upstream.base_url, first_byte_timeout=60.0)) as server:
            yield server


class Customer:
    """An organization of its own, with a batch that runs and one that is done."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.told = served.ask("POST", "/organizations", {"name": "x"}, key="operator_key")
        self.client = openai.OpenAI(api_key=self.told["api_key"], base_url=f"{served.url}/v1", max_retries=0)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        return self.served.ask(method, path, body, key=self.told["admin_key"])

    def running(self) -> str:
        """A batch with one line done and one that does not end."""
        data = "\n".join([line("good"), line("slow", Behaviour.NEVER.value)])
        made = self.client.batches.create(
            input_file_id=upload(self.client, data),
            endpoint=CHAT,
            completion_window="24h",
            metadata={"who": "MARKER"},
        )
        self.until(lambda: self.client.batches.retrieve(made.id).request_counts.completed == 1)
        return made.id

    def classes(self) -> list[str]:
        return sorted(one["class"] for one in self.ask("GET", "/organization/retained_objects")["data"])

    @staticmethod
    def until(true: Any) -> None:
        deadline = time.monotonic() + 60
        while not true():
            assert time.monotonic() < deadline, "it never became true"
            time.sleep(0.1)


@pytest.fixture
def customer(served: Served) -> Iterator[Customer]:
    made = Customer(served)
    yield made
    made.client.close()


def refused(customer: Customer) -> None:
    batches, files = customer.client.batches, customer.client.files
    for call in (
        lambda: batches.create(input_file_id="file-x", endpoint=CHAT, completion_window="24h"),
        batches.list,
        lambda: batches.retrieve("batch_x"),
        lambda: batches.cancel("batch_x"),
        lambda: files.create(file=("a", b"{}"), purpose="batch"),
    ):
        with pytest.raises(openai.PermissionDeniedError) as forbidden:
            call()
        assert forbidden.value.code == "feature_disabled_by_data_controls"


@pytest.mark.parametrize("change", [{"batch": "disabled"}, {"zero_data_retention": True}])
def test_with_a_purge_everything_of_the_feature_is_destroyed_with_receipts(
    customer: Customer, change: dict[str, Any], tmp_path: Path
) -> None:
    customer.running()
    assert customer.classes() == ["batch_input", "batch_input", "batch_work"]  # the file, the metadata, the work
    preview = customer.ask("POST", "/organization/data_controls/preview", change)
    assert (preview["running_jobs"], preview["objects"]) == (1, 3)
    state = customer.ask("POST", "/organization/data_controls", {**change, "purge": True})
    refused(customer)
    customer.until(
        lambda: (
            customer.ask("GET", f"/organization/purges/{state['purge_id']}")["state"] == "done"
            and customer.classes() == []
        )
    )
    assert customer.ask("GET", "/organization/data_controls")["residual"]["objects"] == 0
    assert customer.ask("POST", "/organization/data_controls/preview", change)["running_jobs"] == 0
    command = [sys.executable, "-m", "keepless"]
    url = ("--base-url", customer.served.url, "--admin-key", customer.told["admin_key"])
    subprocess.run([*command, "receipts", "export", "--out", str(tmp_path / "out"), *url], check=True)
    done = subprocess.run(
        [*command, "verify", str(tmp_path / "out"), "--json"], check=True, capture_output=True, text=True
    )
    assert "MARKER" not in done.stdout
    statements = [path for path in (tmp_path / "out").iterdir() if path.suffix != ".vkey"]
    assert len(statements) == 3
    back = {"batch": "enabled"} if "batch" in change else {"zero_data_retention": False}
    customer.ask("POST", "/organization/data_controls", back)
    customer.until(lambda: not customer.client.batches.list().data)  # nothing says that there ever were any


def test_without_a_purge_what_is_there_stays_for_owners_alone(customer: Customer) -> None:
    batch_id = customer.running()
    customer.ask("POST", "/organization/data_controls", {"batch": "disabled", "purge": False})
    refused(customer)
    customer.until(lambda: customer.classes() == ["batch_input", "batch_input"])  # the work ends with its batch
    assert customer.ask("GET", "/organization/data_controls")["residual"]["objects"] == 2
    customer.ask("POST", "/organization/data_controls", {"batch": "enabled"})
    found = customer.client.batches.retrieve(batch_id)
    assert (found.status, found.output_file_id) == ("cancelled", None)  # it does not rise from the dead


def test_the_choice_must_be_made(customer: Customer) -> None:
    batch_id = customer.running()
    with pytest.raises(Exception, match="400"):
        customer.ask("POST", "/organization/data_controls", {"batch": "disabled"})
    assert customer.client.batches.retrieve(batch_id).status == "in_progress"
    customer.client.batches.cancel(batch_id)


def test_a_project_turns_its_own_off(customer: Customer) -> None:
    customer.running()
    project = customer.told["project_id"]
    path = f"/organization/projects/{project}/data_controls"
    assert customer.ask("POST", f"{path}/preview", {"batch": "disabled"})["running_jobs"] == 1
    customer.ask("POST", path, {"batch": "disabled", "purge": True})
    refused(customer)
    customer.until(lambda: customer.classes() == [])
