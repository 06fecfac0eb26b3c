"""What a run came to: what was answered, what was found, what could not be searched.

Holds: `Outcome` (one request under one setting), `Control` (something put there to be found), `Report`. Leaves out:
tables for people (the command line). Nothing here can carry a marker's text: markers are numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keepless.prover.markers import Marker
from keepless.prover.places import Finding, Searched

__all__ = ["Control", "Outcome", "Report"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request. `wrong`: what is not as it was promised, in fixed words; empty = as promised."""

    case: str
    setting: str
    status: int
    kept: bool
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class Control:
    """Something that was put in a place in order to be found there. Not found: that place's search proves nothing."""

    place: str
    found: bool


@dataclass(slots=True)
class Report:
    """Everything that a run says. `wrong`: what is wrong with the deployment as a whole."""

    outcomes: list[Outcome] = field(default_factory=list)
    searched: list[tuple[str, Searched]] = field(default_factory=list)  # when, what
    controls: list[Control] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    markers: Mapping[int, Marker] = field(default_factory=dict)

    @property
    def findings(self) -> list[tuple[str, Finding]]:
        """Each finding and when it was made."""
        return [(when, finding) for when, place in self.searched for finding in sorted(place.findings)]

    @property
    def clean(self) -> bool:
        """Whether all is as promised and the search has shown that it finds."""
        return not (
            self.wrong
            or self.findings
            or any(outcome.wrong for outcome in self.outcomes)
            or not all(control.found for control in self.controls)
        )

    def answer(self) -> dict[str, Any]:
        """As one JSON object."""
        return {
            "object": "keepless.proof",
            "clean": self.clean,
            "markers": len(self.markers),
            "requests": [
                {"case": o.case, "setting": o.setting, "status": o.status, "kept": o.kept, "wrong": o.wrong or None}
                for o in self.outcomes
            ],
            "searched": [
                {
                    "when": when,
                    "place": place.place,
                    "items": place.items,
                    "bytes": place.size,
                    "unreadable": place.unreadable,
                    "found": len(place.findings),
                }
                for when, place in self.searched
            ],
            "findings": [self._finding(when, finding) for when, finding in self.findings],
            "controls": [{"place": control.place, "found": control.found} for control in self.controls],
            "wrong": self.wrong,
            "limits": self.limits,
        }

    def _finding(self, when: str, finding: Finding) -> dict[str, Any]:
        marker = self.markers.get(finding.marker)
        return {
            "when": when,
            "place": finding.place,
            "what": finding.what,
            "form": finding.form,
            "marker": finding.marker,
            "part": marker.part if marker else None,
            "case": marker.case if marker else None,
            "setting": marker.setting if marker else None,
        }
