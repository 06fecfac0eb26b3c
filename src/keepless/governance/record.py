"""The register of transfers as a document that can be handed on: one HTML file for A4, read by everything that reads.

Holds: `record_page`. Pure: the register and the instant at which it was asked for. Leaves out: who writes or sends it.
Nothing in it comes from elsewhere (no script, no image, no style but its own), and every text is escaped. A browser
prints it, or makes a PDF of it, with its tables whole and its heads repeated on each page.
"""

import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from keepless.config import Mechanism, UpstreamRetention
from keepless.governance.transfers import HERE, Recipient, Register, Seen

__all__ = ["NAME", "record_page"]

NAME: Final = "keepless-record-of-transfers.html"

_GROUNDS: Final = {
    Mechanism.NOT_NEEDED: "none needed",
    Mechanism.ADEQUACY: "adequacy decision (GDPR, article 45)",
    Mechanism.SCC: "standard contractual clauses (GDPR, article 46(2)(c))",
    Mechanism.BCR: "binding corporate rules (GDPR, article 47)",
}
_KEEPS: Final = {
    UpstreamRetention.ZERO: "nothing",
    UpstreamRetention.LOGS_30D: "logs for 30 days",
    UpstreamRetention.UNKNOWN: "not declared",
}
_BASIS: Final = (
    "<p>What is said of recipients, grounds, retention and regions is what the operator of this deployment has "
    "declared; what is said of the location is what the location itself answered when it was last asked.</p>"
)
_STYLE: Final = """
@page { size: A4; margin: 18mm 16mm 20mm }
html { font: 10.5pt/1.45 system-ui, "Liberation Sans", Arial, sans-serif; color: #111; background: #fff }
body { max-width: 178mm; margin: 0 auto; padding: 1rem }
h1 { font-size: 17pt; line-height: 1.2; margin: 0 0 .3rem } h2 { font-size: 12.5pt; margin: 1.6rem 0 .3rem }
h1, h2, caption { break-after: avoid } p { margin: .3rem 0 }
table { width: 100%; border-collapse: collapse; margin-top: .5rem }
caption { text-align: left; padding-bottom: .3rem; color: #444 }
th, td { border: .5pt solid #666; padding: .3rem .45rem; text-align: left; vertical-align: top }
td, th { overflow-wrap: anywhere }
thead { display: table-header-group } thead th { background: #eee } tr { break-inside: avoid }
@media print { body { padding: 0 } html { print-color-adjust: exact } }
""".strip()


def record_page(told: Register, at_ms: int) -> str:
    """The document, in UTF-8."""

    def elsewhere(one: Seen, here: str = "here") -> str:
        return here if one.host == HERE else "not declared"

    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_ms // 1000))
    pinned = f"pinned to {told.pinned_to}" if told.pinned_to else "not pinned to a region"
    place = [
        (_words(name), _value(name, value)) for name, value in told.location.items() if not isinstance(value, dict)
    ]
    found = told.location.get("findings")
    place += [(_words(name), light) for name, light in found.items()] if isinstance(found, dict) else []
    models = [
        (
            model.model,
            one.host,
            one.recipient or elsewhere(one, ""),
            _KEEPS[one.retention],
            one.region or elsewhere(one),
        )
        for model in told.models
        for one in model.upstreams
    ]
    parts = [
        "<h1>Record of locations and transfers</h1>",
        f"<p>As it stood on {when}. This organization is {escape(pinned)}.</p>",
        _BASIS,
        "<h2>Where customer data is kept</h2>",
        _table("The location and its properties", ("Property", "State"), place),
        "<h2>Who answers requests</h2>",
        _table("Models", ("Model", "Answered by", "Recipient", "Keeps", "Region"), models),
        "<h2>Transfers</h2>",
        _table(
            "Who else may come to see customer data",
            ("Recipient", "Country", "Ground", "For customers in", "Answers as"),
            [_transfer(one) for one in told.transfers],
        )
        if told.transfers
        else "<p>No transfer is declared.</p>",
    ]
    if told.undeclared:
        hosts = ", ".join(escape(host) for host in told.undeclared)
        parts.append(f"<p><strong>Answer for models and are not declared:</strong> {hosts}.</p>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Record of locations and transfers, {when}</title><style>\n{_STYLE}\n</style></head>\n<body><main>\n"
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def _transfer(one: Recipient) -> tuple[str, ...]:
    module = f", module {one.scc_module}" if one.scc_module else ""
    countries, hosts = ", ".join(one.customers_in) or "every country", ", ".join(one.hosts) or "no upstream"
    return one.recipient, one.country, _GROUNDS[one.mechanism] + module, countries, hosts


def _table(caption: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Its first column names the rows."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(
        f'<tr><th scope="row">{escape(first)}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in rest) + "</tr>"
        for first, *rest in rows
    )
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
    )


def _words(name: str) -> str:
    text = name.replace("_", " ")
    return text[:1].upper() + text[1:]


def _value(name: str, value: object) -> str:
    if value is None:
        return "not declared"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_at") and isinstance(value, int):
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(value))
    return str(value)
