"""The register of transfers: who is named, who is not, and what an address never gives away."""

from pathlib import Path

from keepless.config import load
from keepless.governance.transfers import register

CONFIG = """
[[models]]
id = "near"
[[models]]
id = "far"
engine = "openai"
[[models.upstreams]]
base_url = "https://user:secret@api.example.com:8443/v1?token=secret"
retention = "zero"
region = "US"
[[models.upstreams]]
base_url = "https://other.example.org/v1"

[[transfers]]
recipient = "Example, Inc."
country = "US"
mechanism = "scc"
scc_module = 2
customers_in = ["DE", "FR"]
hosts = ["api.example.com:8443"]
[[transfers]]
recipient = "Example Hosting"
country = "CH"
mechanism = "adequacy"
"""


def test_the_register_names_who_is_declared_and_who_is_not(tmp_path: Path) -> None:
    file = tmp_path / "keepless.toml"
    file.write_text(CONFIG)
    found = register(load(file, {}), {"location": "local", "writable": True}, "EU")
    assert found.pinned_to == "EU"
    assert found.location == {"location": "local", "writable": True}
    seen = [(model.model, one.host, one.recipient) for model in found.models for one in model.upstreams]
    assert seen == [
        ("near", "this machine", None),
        ("far", "api.example.com:8443", "Example, Inc."),
        ("far", "other.example.org", None),
    ]
    assert [(one.recipient, one.country, one.mechanism, one.scc_module) for one in found.transfers] == [
        ("Example, Inc.", "US", "scc", 2),
        ("Example Hosting", "CH", "adequacy", None),
    ]
    assert found.undeclared == ["other.example.org"]
    assert "secret" not in repr(found)
