"""Usage: requests, tokens, audio, errors and latency, by day and by model, project, key or endpoint; as CSV too."""

import csv
import io
from datetime import UTC, datetime
from typing import Any, Final

from keepless.clock import DAY_MS
from keepless.console.history import people
from keepless.console.kept import project_names
from keepless.console.services import Services
from keepless.console.visit import Answer, Download, View, Visit
from keepless.ids import Id
from keepless.usage.overview import By, Overview, overview

__all__ = ["table", "usage"]

_SPANS: Final = (7, 30, 90)
_MOST_ROWS: Final = 200


def usage(services: Services, visit: Visit) -> Answer:
    """The page."""
    days, by, found = _asked(services, visit)
    today = services.clock.now_ms() // DAY_MS
    line = [found.days.get(day) for day in range(today - days + 1, today + 1)]
    at = [day * DAY_MS // 1000 for day in range(today - days + 1, today + 1)]
    requests = {
        "series": ["Answered", "Failed"],
        "data": [
            at,
            [one.requests - one.errors if one else 0 for one in line],
            [one.errors if one else 0 for one in line],
        ],
    }
    tokens = {
        "series": ["Tokens in", "Tokens out"],
        "data": [
            at,
            [one.prompt_tokens if one else 0 for one in line],
            [one.completion_tokens if one else 0 for one in line],
        ],
    }
    names = _names(services, visit.organization_id, by)
    groups = sorted(found.groups.items(), key=lambda item: -item[1].requests)[:_MOST_ROWS]
    return View(
        "usage.html",
        {
            "days": days,
            "spans": _SPANS,
            "by": by,
            "ways": list(By),
            "found": found,
            "groups": [(names.get(group, group), sums, found.latencies.get(group)) for group, sums in groups],
            "by_day": [(day * DAY_MS, sums) for day, sums in sorted(found.days.items(), reverse=True)],
            "requests": requests,
            "tokens": tokens,
        },
    )


def table(services: Services, visit: Visit) -> Answer:
    """The same as CSV: one line a day and group."""
    days, by, found = _asked(services, visit)
    names = _names(services, visit.organization_id, by)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    columns = ("requests", "errors", "prompt_tokens", "completion_tokens", "audio_seconds")
    writer.writerow(["day", by.value, f"{by.value}_name", *columns])
    for (day, group), sums in sorted(found.both.items()):
        numbers = (sums.requests, sums.errors, sums.prompt_tokens, sums.completion_tokens, sums.audio_ms / 1000)
        writer.writerow([_iso(day), group, _plain(names.get(group, "")), *numbers])
    return Download(f"usage-{days}-days-by-{by.value}.csv", "text/csv; charset=utf-8", text.getvalue().encode())


def _asked(services: Services, visit: Visit) -> tuple[int, By, Overview]:
    days = visit.number("days", 1, 366) or 30
    by = visit.choice("by", By) or By.MODEL
    now_ms = services.clock.now_ms()
    end = (now_ms // DAY_MS + 1) * DAY_MS  # whole days: their sums are there
    return days, by, overview(services.db, visit.organization_id, end - days * DAY_MS, end, by)


def _names(services: Services, organization_id: Id, by: By) -> dict[str, str]:
    names: dict[str, Any] = {"": "none"}
    if by is By.PROJECT:
        names |= project_names(services, organization_id)
    if by is By.KEY:
        names |= people(services, organization_id)  # who began batches here
        names |= {one.id: one.name for one in services.access.api_keys(organization_id)}
    return names


def _iso(day: int) -> str:
    return datetime.fromtimestamp(day * DAY_MS / 1000, UTC).strftime("%Y-%m-%d")


def _plain(name: str) -> str:
    """A name that no spreadsheet takes for a formula."""
    return f"'{name}" if name[:1] in ("=", "+", "-", "@", "\t") else name
