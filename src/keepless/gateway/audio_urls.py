"""Audio that a request names by url, or a line of a batch by file id: fetched between the limits and the way.

Holds: `AudioHandler`. Leaves out: which urls are allowed (audio_params asks the fetcher), fetching (outbound.fetch) and
reading (audio_files), everything about requests that bring their audio along (handler, audio).

The key, the parameters and the limits come first: nobody without a key makes this server fetch. The file is in memory
only. A client that leaves ends it. What went wrong is told in fixed texts: neither the url nor what its server said.
"""

from functools import partial
from typing import Final, cast

from keepless.errors import Code, ErrorType, KeeplessError, Problem
from keepless.gateway.audio import AudioModel
from keepless.gateway.audio_files import StoredAudio
from keepless.gateway.audio_params import AudioRequest, too_large
from keepless.gateway.handler import Accepted, Arrival, InferenceHandler
from keepless.http.problems import internal
from keepless.outbound.fetch import BusyError, Fetcher, UnexpectedError
from keepless.outbound.pinned import Failure, OutboundError

__all__ = ["AudioHandler"]

_WHY: Final = {
    Failure.UNRESOLVED: "its host has no address",
    Failure.ADDRESS_REFUSED: "its host leads to an address that is not public",
    Failure.UNREACHABLE: "its host cannot be reached, or ended the connection",
    Failure.CERTIFICATE: "its host has no certificate that is trusted",
    Failure.TIMEOUT: "its host took too long",
    Failure.MALFORMED: "its host gave an answer that cannot be understood",
    Failure.REDIRECTED: "its host redirects, which is not followed",
    Failure.STATUS: "its host does not give the file",
}


class AudioHandler(InferenceHandler[AudioModel, AudioRequest]):
    """Answers one of the endpoints that hear. `fetcher` None: its family allows no url; `stored` None: no file id."""

    fetcher: Fetcher | None = None
    stored: StoredAudio | None = None

    def _go_on(self, arrival: Arrival, accepted: Accepted) -> None:
        checked = cast("AudioRequest", accepted[2])
        fetched = partial(self._fetched, arrival, accepted)
        try:
            if checked.source is not None and self.fetcher is not None:
                cancel = self.fetcher.start(checked.source, fetched)
            elif checked.file_id is not None and self.stored is not None:
                cancel = self.stored.start(checked.file_id, accepted[0], fetched)
            else:
                super()._go_on(arrival, accepted)
                return
        except BusyError:
            raise _busy() from None
        outlet = arrival.outlet

        def left() -> None:
            cancel()
            self._record(arrival, _LEFT, 0)

        outlet.on_disconnect = left

    def _fetched(self, arrival: Arrival, accepted: Accepted, found: bytes | KeeplessError) -> None:
        outlet = arrival.outlet
        if outlet.closed:
            return
        outlet.on_disconnect = None
        try:
            if isinstance(found, KeeplessError):
                self._refuse(arrival, _problem(found, 0 if self.fetcher is None else self.fetcher.most_bytes))
                return
            model, checked = cast("AudioModel", accepted[1]), cast("AudioRequest", accepted[2])
            param = "url" if checked.file_id is None else "file_id"
            checked.audio, checked.source, checked.file_id = model.rules.sized(found, param), None, None
            super()._go_on(arrival, accepted)
        except Problem as problem:
            self._refuse(arrival, problem)
        except Exception as error:
            self._fail(arrival, error)


_LEFT: Final = Problem(499, Code.CLIENT_CLOSED, "")


def _problem(error: KeeplessError, limit: int) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, UnexpectedError):
        return internal()
    failure = error.failure if isinstance(error, OutboundError) else Failure.UNREACHABLE
    if failure is Failure.TOO_LARGE:
        return too_large(limit, "url")
    message = f"The audio cannot be fetched from 'url': {_WHY[failure]}."
    return Problem(400, Code.URL_UNREACHABLE, message, param="url")


def _busy() -> Problem:
    return Problem(
        503,
        Code.OVERLOADED,
        "This server is fetching as many files as it can at the moment. Please try again shortly.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )
