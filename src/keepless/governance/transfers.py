"""The register of transfers: where customer data lives, who may come to see it, and on which ground.

Holds: `register`, made from the configuration and what the location says of itself, and its shapes. Leaves out: pages,
routes and commands that show it. Pure: nothing is asked and nothing is kept. Addresses become host names: what else an
address holds may be a secret. An upstream that no `[[transfers]]` entry names is listed as such and not left out.
"""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from keepless.config import EMBEDDED, Mechanism, ModelConfig, Settings, UpstreamRetention

__all__ = ["ModelSeen", "Recipient", "Register", "Seen", "register"]

HERE: Final = "this machine"
Location = dict[str, str | int | bool | dict[str, str] | None]


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Who answers for a model, and what they promise. `recipient` None: no entry of the register names this host."""

    host: str
    retention: UpstreamRetention
    region: str | None
    recipient: str | None


class ModelSeen(msgspec.Struct, frozen=True, kw_only=True):
    """A model and everybody who may answer for it."""

    model: str
    upstreams: list[Seen]


class Recipient(msgspec.Struct, frozen=True, kw_only=True):
    """One entry. `customers_in`: the countries of customers that it is about; none: all."""

    recipient: str
    country: str
    mechanism: Mechanism
    scc_module: int | None
    customers_in: list[str]
    hosts: list[str]


class Register(msgspec.Struct, frozen=True, kw_only=True):
    """The whole. `undeclared`: hosts that answer for models and that no entry names."""

    object: Literal["transfers.register"] = "transfers.register"
    location: Location
    pinned_to: str | None  # the region that the organization's data may not leave
    models: list[ModelSeen]
    transfers: list[Recipient]
    undeclared: list[str]


def register(settings: Settings, location: Location, pinned_to: str | None) -> Register:
    """The register as it stands for one organization. `location`: what `LocationGuard.status` says."""
    named = {host: entry.recipient for entry in settings.transfers for host in entry.hosts}
    models = [ModelSeen(model=model.id, upstreams=_seen(model, named)) for model in settings.models]
    hosts = {seen.host for model in models for seen in model.upstreams if seen.recipient is None}
    return Register(
        location=location,
        pinned_to=pinned_to,
        models=models,
        transfers=[
            Recipient(
                recipient=entry.recipient,
                country=entry.country,
                mechanism=entry.mechanism,
                scc_module=entry.scc_module,
                customers_in=entry.customers_in,
                hosts=entry.hosts,
            )
            for entry in settings.transfers
        ],
        undeclared=sorted(hosts - {HERE}),
    )


def _seen(model: ModelConfig, named: Mapping[str, str]) -> list[Seen]:
    if model.engine in EMBEDDED:
        return [Seen(host=HERE, retention=UpstreamRetention.ZERO, region=None, recipient=None)]
    return [
        Seen(host=host, retention=one.retention, region=one.region, recipient=named.get(host))
        for one in model.all_upstreams()
        for host in (_host(one.base_url),)
    ]


def _host(base_url: str) -> str:
    return base_url.partition("://")[2].partition("/")[0].rpartition("@")[2]
