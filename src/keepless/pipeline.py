"""THE WAY of a request, on one page: decide -> infer -> answer -> record usage -> (only with a permit) vault.

Holds: `Way` (one a process) and `Passage` (one request on its way), to which an engine tells its answer. Leaves out:
HTTP and wire formats (the gateway's `Speaker`), what an engine's failure means (inference.faults), the steps of a
capture (incidents, which ask policy and the vault's door; nothing here can reach what is kept).

1. Decide what could be kept at most if this request failed, under the policy in force now (no lease: nothing).
2. Infer: only at an engine that policy permits, asked again at the very moment of sending. A tightening cancels what
   is under way to an engine that is not permitted any more (`Way.enforce`, called after each change of policy). Where
   a model has several upstreams and one fails before a byte of its answer, another one may be asked (inference.tries).
3. Answer, byte for byte.
4. Record usage: exactly one row, whatever happened.
5. Only if it failed in a way that degrades reliability and 1. allowed it (or a confirmed abuse case names the key):
   ask for a capture, wait for what became of it, and say so in the answer. Of any other request the bytes are dropped
   with its `Passage`.

Everything runs on the event loop's thread; a capture runs in a worker thread.
"""

import time
from functools import partial
from typing import Final

from keepless import log
from keepless.accounts.lease import Lease
from keepless.accounts.principal import PolicyInForce
from keepless.clock import Clock
from keepless.errors import Code
from keepless.incidents.afterwards import Afterwards, Conclude, could_keep, described
from keepless.incidents.answered import Answered
from keepless.inference import faults
from keepless.inference.asking import Ask, Ending, EngineFailedError, MalformedError, Speaker, Tokens
from keepless.inference.backend import Call, Exchange, Failure, FailureKind
from keepless.inference.faults import Fault
from keepless.inference.metering import record_of
from keepless.inference.permission import refusal
from keepless.inference.target import Target
from keepless.inference.tries import Tries
from keepless.policy.decision import Discard, Reason
from keepless.usage.ledger import Ledger
from keepless.usage.record import Outcome, Phase
from keepless.vault.rows import Kept

__all__ = ["Passage", "Way"]

_LONGEST_ANSWER: Final = 64 * 1024 * 1024  # bytes of an answer that is not streamed
_NOTHING: Final = b"none"
_COULD_BE_KEPT: Final = Outcome.ON_ERROR
_COULD_NOT: Final = Outcome.NONE


class Way:
    """What every request of this process passes through."""

    def __init__(
        self, lease: Lease, ledger: Ledger, clock: Clock, afterwards: Afterwards, *, capture_bytes: int
    ) -> None:
        self.lease: Final = lease
        self.ledger: Final = ledger
        self.clock: Final = clock
        self.afterwards: Final = afterwards
        self.capture_bytes: Final = capture_bytes
        self.inflight: Final[set[Passage]] = set()

    def begin(self, ask: Ask, speaker: Speaker) -> "Passage":
        """Send a request on its way."""
        passage = Passage(self, ask, speaker)
        passage.start()
        return passage

    def enforce(self) -> None:
        """After a change of policy or the end of the lease: nothing under way may be less strict than what is now."""
        for passage in tuple(self.inflight):
            passage.enforce()

    def policy_of(self, ask: Ask) -> PolicyInForce | None:
        """What is in force for a request now; None when that cannot be known."""
        return self.lease.snapshot_effective(ask.principal.organization.id, ask.principal.project.id)


class Passage:
    """One request on its way; the engine's `Sink`."""

    __slots__ = (
        "_answered", "_ask", "_could_keep", "_exchange", "_first", "_generation", "_over", "_policy", "_room",
        "_so_far", "_speaker", "_status", "_streaming", "_target", "_told", "_too_large", "_tries", "_upstream",
        "_watched", "_way",
    )  # fmt: skip

    def __init__(self, way: Way, ask: Ask, speaker: Speaker) -> None:
        self._way = way
        self._ask = ask
        self._speaker = speaker
        self._exchange: Exchange | None = None
        self._generation = way.lease.generation
        self._policy = way.policy_of(ask)
        self._could_keep = not ask.never_kept and could_keep(self._policy, ask.controls)
        self._watched = self._could_keep and way.afterwards.watches(ask.principal.key_id)
        self._target: Target | None = None  # who is asked, or was last
        self._tries: Tries | None = None  # when there are several to ask
        self._upstream = b""  # what is said of who has seen the request
        self._so_far: Final = Answered()  # a whole answer until it is sent, a stream only if it could be kept
        self._room = way.capture_bytes - ask.received.size  # for what is answered, bytes
        self._answered = 0  # bytes
        self._status = 0  # the engine's
        self._first = 0  # when its first byte came
        self._streaming = False
        self._told = False  # the client has the beginning of the stream
        self._too_large = False  # to be captured
        self._over = False

    # -- 2 infer -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Ask an engine that policy permits, or say why there is none."""
        ask, target = self._ask, self._ask.route.only
        found: Target | Fault
        if target is not None:
            found = refusal(self._way.lease, ask, target) or target
        else:
            self._tries = Tries(ask.route, partial(refusal, self._way.lease, ask), ask.began)
            found = self._tries.first()
        if isinstance(found, Fault):
            self._fail(found)
            return
        self._way.inflight.add(self)
        self._send(found)

    def _send(self, target: Target) -> None:
        ask, tries = self._ask, self._tries
        self._target = target
        self._upstream = target.said if tries is None else target.said + tries.said
        target.take()
        try:
            body = ask.body_for(target)
            call = Call(
                ask.path,
                body,
                ask.stream,
                ask.request_id,
                permitted=self.permitted,
                metered=self._metered,
                content_type=ask.content_type,
            )
            self._exchange = target.backend.start(call, self)
        except Exception as error:  # an engine that cannot even begin: a fault of ours, with an end like any other
            self._caught(error)

    def _elsewhere(self, fault: Fault, *, begun: bool) -> None:
        """An engine failed, or may not be asked any more: ask another if that can mend it, or fail."""
        target, tries = self._target, self._tries
        if self._over or target is None or tries is None:
            self._fail(fault)
            return
        found = tries.after(target, fault, begun=begun)
        if isinstance(found, Fault):
            self._fail(found)
            return
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()
        target.leave(fault)
        self._status = self._first = 0
        self._send(found)

    def permitted(self) -> bool:
        """Whether the engine may be sent the request now: the policy it was checked under still holds, or permits."""
        lease, target = self._way.lease, self._target
        if lease.valid and lease.generation == self._generation:
            return True
        return target is not None and refusal(lease, self._ask, target) is None

    def enforce(self) -> None:
        """Obey a policy that has changed: stop at an engine no longer permitted, forget what may not be kept."""
        fault = None if self._target is None else refusal(self._way.lease, self._ask, self._target)
        if fault is not None:
            self._elsewhere(fault, begun=self._first > 0)
        if self._could_keep and not self._over:
            now = self._way.policy_of(self._ask)
            if not could_keep(now, self._ask.controls):
                self._policy, self._could_keep, self._watched = now, False, False
                if self._streaming:
                    self._so_far.clear()

    def abandon(self) -> None:
        """The client left: stop the engine at once."""
        if not self._over:
            self._end()
            self._record(499, Code.CLIENT_CLOSED, None)

    def pause(self) -> None:
        """The client is slow."""
        if self._exchange is not None:
            self._exchange.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._exchange is not None:
            self._exchange.resume()

    # -- 3 answer (Sink) -----------------------------------------------------------------------------------------

    def on_head(self, status: int, content_type: bytes, retry_after_s: int | None) -> None:
        """See `Sink`."""
        self._status, self._first = status, time.perf_counter_ns()
        self._streaming = status == 200 and self._ask.stream
        if status != 200:
            fault = faults.of_status(status, retry_after_s, embedded=self._ask.route.embedded)
            if fault is not None:
                self._elsewhere(fault, begun=False)
        elif self._streaming and not content_type.lower().startswith(self._ask.answered_as):
            self._fail(faults.malformed())

    def on_data(self, data: bytes) -> None:
        """See `Sink`."""
        if self._over:
            return
        try:
            self._answered += len(data)
            if self._streaming:
                if self._could_keep:
                    self._remember(data)
                if self._told:
                    self._speaker.stream(data, _NOTHING)
                else:
                    self._told = self._speaker.stream(data, self._promise)
            elif self._answered <= _LONGEST_ANSWER:
                self._so_far.add(data)
            else:
                self._fail(faults.malformed())
        except Exception as error:
            self._caught(error)

    def on_end(self) -> None:
        """See `Sink`."""
        if self._over:
            return
        self._exchange = None
        try:
            if self._streaming:
                self._end_stream()
                return
            body = self._so_far.whole()
            if self._status == 200:
                self._speaker.read(body)
                self._end(answered=True)
                if self._watched:
                    self._ask_for_capture(None, partial(self._deliver, body))
                else:
                    self._deliver(body, None)
            else:
                self._speaker.answer(self._status, body, _NOTHING + self._upstream)
                self._end(answered=True)
                self._record(self._status, Code.UPSTREAM_REJECTED, None)
        except Exception as error:
            self._caught(error)

    def _metered(self, prompt: int, completion: int, audio_ms: int) -> None:
        self._speaker.tokens = Tokens(prompt, completion, 0, audio_ms)

    def on_failure(self, failure: Failure) -> None:
        """See `Sink`."""
        self._exchange = None
        refused: Fault | None = None
        if failure.kind is FailureKind.WITHDRAWN and self._target is not None:
            refused = refusal(self._way.lease, self._ask, self._target)
        self._elsewhere(refused or faults.of_failure(failure), begun=self._first > 0)

    def _caught(self, error: Exception) -> None:
        """Turn an answer that is none, or a fault of ours, into an error for the client."""
        if isinstance(error, MalformedError):
            self._fail(faults.malformed())
        elif isinstance(error, EngineFailedError):
            self._fail(self._engine_failed)
        else:
            log.failure(log.Event.SERVER_FAILED, error, request_id=self._ask.request_id)
            self._fail(faults.internal())

    @property
    def _promise(self) -> bytes:
        """What can be said of retention while the answer is still on its way (DECISIONS 5)."""
        if self._watched:
            return b"pending; class=abuse_log" + self._upstream
        return (b"on-error" if self._could_keep else _NOTHING) + self._upstream

    def _end_stream(self) -> None:
        ending = self._speaker.stream_ended()
        if ending is Ending.COMPLETE and self._told:
            self._end(answered=True)
            if self._watched:
                self._ask_for_capture(None, self._close)
            else:
                self._close(None)
        elif ending is Ending.FAILED and self._told:
            # The client has the engine's own error event already.
            self._fail(self._engine_failed, said=True)
        else:
            self._fail(faults.of_failure(Failure(FailureKind.CUT)))

    @property
    def _engine_failed(self) -> Fault:
        return faults.of_status(500, None, embedded=self._ask.route.embedded) or faults.malformed()

    def _deliver(self, body: bytes, result: Kept | Discard | None) -> None:
        self._speaker.answer(200, body, self._kept(result) or _NOTHING + self._upstream)
        self._record(200, None, result)

    def _close(self, result: Kept | Discard | None) -> None:
        self._speaker.close(self._kept(result))
        self._record(200, None, result)

    def _kept(self, result: Kept | Discard | None) -> bytes | None:
        return described(result) + self._upstream if isinstance(result, Kept) else None

    # -- 5 failure, and what may be kept of it ---------------------------------------------------------------------

    def _fail(self, fault: Fault, *, said: bool = False) -> None:
        def conclude(result: Kept | Discard | None) -> None:
            kept = self._kept(result)
            if said:
                self._speaker.close(kept)
            else:
                self._speaker.fail(fault.problem, kept or _NOTHING + self._upstream, kept)
            self._record(fault.problem.status, fault.problem.code, result)

        if self._over:
            return
        self._end(fault)
        if (fault.reason is not None and not self._ask.never_kept) or self._watched:
            self._ask_for_capture(fault.reason, conclude)
        else:
            conclude(None)

    def _remember(self, data: bytes) -> None:
        if self._answered <= self._room:
            self._so_far.hold(data)
        else:
            self._too_large = True
            self._so_far.clear()

    def _ask_for_capture(self, reason: Reason | None, conclude: Conclude) -> None:
        self._way.afterwards.ask(
            self._ask,
            self._policy,
            reason=reason,
            answer=None if self._too_large else self._so_far,
            phase=self._phase,
            upstream_status=self._status,
            conclude=conclude,
        )

    # -- 4 record usage --------------------------------------------------------------------------------------------

    @property
    def _phase(self) -> Phase:
        if self._answered:
            return Phase.ANSWER
        return Phase.FIRST_BYTE if self._first else Phase.CONNECT

    def _end(self, fault: Fault | None = None, *, answered: bool = False) -> None:
        self._over = True
        self._way.inflight.discard(self)
        if self._target is not None:
            self._target.leave(fault, answered=answered)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cancel()

    def _record(self, status: int, code: Code | None, result: Kept | Discard | None) -> None:
        speaker, way = self._speaker, self._way
        if result is None:
            outcome = _COULD_BE_KEPT if self._could_keep else _COULD_NOT
        else:
            outcome = Outcome.CAPTURED if isinstance(result, Kept) else Outcome.REFUSED
        record = record_of(
            self._ask,
            at_ms=way.clock.now_ms(),
            status=status,
            code=code,
            tokens=speaker.tokens,
            first=self._first,
            bytes_out=speaker.bytes_out,
            outcome=outcome,
            discard=result if isinstance(result, Discard) else None,
            object_id=result.id if isinstance(result, Kept) else None,
            upstream=None if self._target is None else self._target.retention,
            sketch=None if code is None else speaker.sketch(self._phase, self._status, self._answered),
        )
        way.ledger.add(record)
        speaker.settle(speaker.tokens)
