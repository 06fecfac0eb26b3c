"""Pages from templates: escaping always on, an unknown name is a fault, headers that allow nothing from elsewhere.

Holds: the environment with its filters, `DONE` (what a page says after an act), `page`. Leaves out: which page.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse

from keepless.clock import DAY_MS
from keepless.console import assets

__all__ = ["DONE", "HEADERS", "ago", "left", "page", "size"]

HEADERS: Final = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}

DONE: Final = {
    "changed": "Data controls changed. They are in force everywhere.",
    "same": "Nothing had to be changed.",
    "deleted": "Deleted. The key is destroyed and the store has acknowledged that the bytes are gone.",
    "key_revoked": "The key is revoked. It is accepted nowhere any more.",
    "project_created": "The project is there and usable at once.",
    "project_renamed": "The project has its new name.",
    "project_archived": "The project is archived. Its keys are revoked.",
    "limits_changed": "The rate limits are in force.",
    "member_added": "The member was added.",
    "member_removed": "The member was removed and the address erased.",
    "member_changed": "The member has the new role.",
    "invited": "The invite was made.",
    "invite_revoked": "The invite is revoked.",
    "hold_placed": "The hold is in place. Nothing it covers can be destroyed.",
    "hold_released": "The hold is released. What was overdue is destroyed at once.",
    "batch_created": "The batch was accepted.",
    "batch_cancelled": "The batch ends with what is done.",
    "uploaded": "The file is kept.",
    "opening_requested": "The opening was requested. A second person decides.",
    "opening_decided": "The decision stands.",
    "tuning_created": "The fine-tuning was accepted.",
    "tuning_changed": "The fine-tuning was changed.",
    "tuning_deleted": "The fine-tuning and its model are destroyed.",
    "case_decided": "The decision stands.",
}

_UNITS: Final = ("B", "KB", "MB", "GB", "TB", "PB")


def size(number: int) -> str:
    """Bytes for people."""
    value, unit = float(number), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{int(value)} {_UNITS[unit]}" if unit == 0 or value >= 100 else f"{value:.1f} {_UNITS[unit]}"


def left(ms: int) -> str:
    """A span of time still to go, in its two largest units."""
    if ms <= 0:
        return "due now"
    days, rest = divmod(ms, DAY_MS)
    hours, rest = divmod(rest, 3_600_000)
    minutes = rest // 60_000
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else "under a minute"


def ago(ms: int) -> str:
    """A span of time that is over, in its largest unit."""
    for unit, name in ((DAY_MS, "d"), (3_600_000, "h"), (60_000, "min")):
        if ms >= unit:
            return f"{ms // unit} {name} ago"
    return "just now"


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _when(ms: int | None, empty: str = "never") -> str | Markup:
    """An instant, UTC; machines find it in the attribute."""
    if ms is None:
        return empty
    moment = _moment(ms)
    return Markup('<time datetime="{}">{}</time>').format(
        moment.strftime("%Y-%m-%dT%H:%M:%SZ"), moment.strftime("%Y-%m-%d %H:%M")
    )


def _day(ms: int | None, empty: str = "never") -> str | Markup:
    if ms is None:
        return empty
    day = _moment(ms).strftime("%Y-%m-%d")
    return Markup('<time datetime="{}">{}</time>').format(day, day)


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("keepless.console"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        cache_size=-1,
    )
    made.filters |= {
        "size": size,
        "count": lambda number: f"{number:,}",
        "when": _when,
        "day": _day,
        "left": left,
        "short": lambda text: text if len(text) <= 60 else text[:59] + "…",
        "ago": ago,
        "words": lambda text: str(text).replace("_", " "),
        "named": lambda text: str(text).replace("_", " ").capitalize(),
    }
    made.globals |= {"asset": assets.url, "done": DONE}
    return made


_TEMPLATES: Final = _environment()


def page(template: str, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """A template as an answer."""
    return HTMLResponse(_TEMPLATES.get_template(template).render(values), status_code=status, headers=HEADERS)
