"""llama.cpp's events as OpenAI's and Groq's answer.

Holds: `Answer`, fed with the engine's events one by one, giving the bytes to pass on: chunks of a stream as they come,
or one JSON at the end. Leaves out: the request (dialect), sockets (llama).

Nothing of the engine's own gets out: no path, no fingerprint, no timings; ids and the model's name are ours. Times in
`usage` are the engine's, in seconds; `queue_time` is what passed before the engine began with the prompt.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from keepless.errors import Code, KeeplessError, Problem
from keepless.inference.embedded.dialect import NONE, Json, Plan, too_long

__all__ = ["Answer", "EngineFaultError"]

_encode: Final = msgspec.json.Encoder(enc_hook=str).encode  # an id is a str of a type of our own
_DONE: Final = b"[DONE]"
_FINGERPRINT: Final = "fp_keepless_llama"
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_ENDS: Final = ('"}', "}", '"}}', "}}")  # what an answer that was cut short may lack
_CALLED: Final = re.compile(r'\s*\{\s*"name"\s*:\s*"([^"\\]*)"')  # which function, however soon it was cut after that


class EngineFaultError(KeeplessError):
    """The engine reported a fault, or said what no engine should."""


@dataclass(slots=True)
class _Choice:
    """One choice so far."""

    text: list[str] = field(default_factory=list)
    logprobs: list[Json] = field(default_factory=list)
    begun: bool = False
    finish: str | None = None


class Answer:
    """The answer to one request. `done` after its last byte; `status` is 400 when it is not what was asked for."""

    def __init__(self, plan: Plan) -> None:
        self.done = False
        self.status = 200
        self._plan: Final = plan
        self._choices: Final = [_Choice() for _ in range(plan.choices)]
        self._prompt_tokens = self._completion_tokens = self._cached_tokens = 0
        self._prompt_s = self._completion_s = 0.0
        self._first: float | None = None
        self._begun = False
        self._refused: bytes | None = None
        self._held: Json | None = None  # the chunk that ends the last choice, until the usage is known

    def feed(self, data: bytes, now: float) -> bytes:
        """Take one event's data at the event loop's time `now`; the bytes to pass on, if any.

        Raises `EngineFaultError` when the engine reports a fault or what it says makes no sense.
        """
        if self.done:
            return b""
        try:
            out = self._end() if data == _DONE else self._event(_decoded(data), now)
        except (KeyError, TypeError, AttributeError):
            raise EngineFaultError from None
        if self._refused is not None and not self._begun:
            self.done, self.status = True, 400
            return self._refused
        self.done = data == _DONE
        return out

    def refusal(self, status: int, body: bytes) -> Problem | None:
        """The engine's refusal in our words; None when it is a fault. Its own text may quote the request."""
        if not 400 <= status < 500 or status in (401, 403, 404):
            return None
        try:
            error = _decoded(body, fault=False).get("error")
        except EngineFaultError:
            error = None
        if isinstance(error, dict) and error.get("type") == "exceed_context_size_error":
            count = error.get("n_prompt_tokens")
            has = f" The messages have {count} tokens." if isinstance(count, int) else ""
            return too_long(self._plan.context, has)
        if self._plan.schema is not None:
            return Problem(
                400,
                Code.UNSUPPORTED_VALUE,
                f"'{self._plan.schema}' : this model cannot follow the JSON schema",
                param=self._plan.schema,
            )
        return Problem(400, Code.INVALID_VALUE, "The model cannot serve this combination of parameters.")

    # -- one event ------------------------------------------------------------------------------------------------

    def _event(self, event: Json, now: float) -> bytes:
        if self._first is None:
            self._first = now
        self._count(event)
        out = []
        for choice in event.get("choices") or []:
            index = choice["index"]
            if not 0 <= index < len(self._choices):
                raise EngineFaultError
            out += self._take(index, choice)
        return _events(out)

    def _count(self, event: Json) -> None:
        usage, timings = event.get("usage"), event.get("timings")
        if usage:
            self._prompt_tokens = max(self._prompt_tokens, usage["prompt_tokens"])
            self._completion_tokens += usage["completion_tokens"]
            details = usage.get("prompt_tokens_details") or {}
            self._cached_tokens = max(self._cached_tokens, details.get("cached_tokens") or 0)
        if timings:
            self._prompt_s = max(self._prompt_s, timings["prompt_ms"] / 1000)
            self._completion_s = max(self._completion_s, timings["predicted_ms"] / 1000)

    def _take(self, index: int, event: Json) -> list[Json]:
        """What one choice of an event adds; the chunks of the stream that can go out now."""
        choice, delta = self._choices[index], event.get("delta") or {}
        text, logprobs = delta.get("content") or "", _logprobs(event)
        choice.finish = event.get("finish_reason")
        if not self._plan.stream or self._plan.tools is not None:
            choice.text.append(text)
            choice.logprobs += logprobs or []
            return self._called(index, choice) if choice.finish and self._plan.stream else []
        out = []
        if not choice.begun:
            choice.begun = True
            out.append(self._chunk(index, {"role": "assistant", "content": ""}))
        if text or logprobs:
            out.append(self._chunk(index, {"content": text}, logprobs=logprobs))
        if choice.finish:
            out += self._finish(index, choice.finish)
        return out

    def _called(self, index: int, choice: _Choice) -> list[Json]:
        message, finish = self._message(index, choice)
        if self._refused is not None and not self._begun:
            return []
        for number, call in enumerate(message.get("tool_calls") or []):
            call["index"] = number
        return [self._chunk(index, message), *self._finish(index, finish)]

    def _finish(self, index: int, finish: str) -> list[Json]:
        chunk = self._chunk(index, {}, finish=finish)
        if all(choice.finish for choice in self._choices):
            self._held = chunk
            return []
        return [chunk]

    def _chunk(self, index: int, delta: Json, *, finish: str | None = None, logprobs: list[Json] | None = None) -> Json:
        body = {"content": logprobs, "refusal": None} if logprobs else None
        chunk = self._envelope("chat.completion.chunk")
        chunk["choices"] = [{"index": index, "delta": delta, "logprobs": body, "finish_reason": finish}]
        if not self._begun:
            self._begun = True
            chunk["x_groq"] = self._groq()
        return chunk

    # -- the end --------------------------------------------------------------------------------------------------

    def _end(self) -> bytes:
        if not all(choice.finish for choice in self._choices):
            raise EngineFaultError
        usage = self._usage()
        if not self._plan.stream:
            answer = self._envelope("chat.completion")
            answer["choices"] = [self._complete(index, choice) for index, choice in enumerate(self._choices)]
            answer["usage"] = usage
            answer["x_groq"] = self._groq()
            return _encode(answer)
        out = []
        if self._held is not None:
            self._held["x_groq"] = {**self._groq(), "usage": usage}
            out.append(self._held)
        if self._plan.include_usage:
            out.append({**self._envelope("chat.completion.chunk"), "choices": [], "usage": usage})
        return _events(out) + b"data: [DONE]\n\n"

    def _complete(self, index: int, choice: _Choice) -> Json:
        message, finish = self._message(index, choice)
        logprobs = {"content": choice.logprobs, "refusal": None} if choice.logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": finish}

    def _message(self, index: int, choice: _Choice) -> tuple[Json, str]:
        """The message of a finished choice and why it ended."""
        text, finish = "".join(choice.text), choice.finish or "stop"
        if self._plan.tools is not None:
            return self._tool_message(index, text, finish)
        if self._plan.json and finish == "length" and _object(text) is None:
            self._refused = _refusal("json_validate_failed", "Failed to validate JSON.", text)
        return {"role": "assistant", "content": text}, finish

    def _tool_message(self, index: int, text: str, finish: str) -> tuple[Json, str]:
        said = _object(text)
        if (
            said is not None
            and said.get("name") in (self._plan.tools or ())
            and isinstance(said.get("arguments"), dict)
        ):
            function = {"name": said["name"], "arguments": _encode(said["arguments"]).decode()}
            call = {"id": f"call_{self._plan.request_id[4:]}{index}", "type": "function", "function": function}
            return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        if self._plan.forced:
            self._refused = _refusal("tool_use_failed", "Failed to call a function.", text)
        mended = said or next(filter(None, (_object(text + end) for end in _ENDS)), None)
        if mended is not None and mended.get("name") == NONE and isinstance(mended.get("message"), str):
            return {"role": "assistant", "content": mended["message"]}, finish
        called = _CALLED.match(text)
        if called is not None and called[1] in (self._plan.tools or ()):
            self._refused = _refusal("tool_use_failed", "Failed to call a function.", text)
        # What is left was cut before it said anything: the words around it are ours, not the model's.
        cut = said is None and text.lstrip().startswith("{")
        return {"role": "assistant", "content": "" if cut else text}, finish

    def _usage(self) -> Json:
        started = self._first if self._first is not None else self._plan.started
        return {
            "queue_time": round(max(0.0, started - self._plan.started - self._prompt_s), 9),
            "prompt_tokens": self._prompt_tokens,
            "prompt_time": round(self._prompt_s, 9),
            "completion_tokens": self._completion_tokens,
            "completion_time": round(self._completion_s, 9),
            "total_tokens": self._prompt_tokens + self._completion_tokens,
            "total_time": round(self._prompt_s + self._completion_s, 9),
            "prompt_tokens_details": {"cached_tokens": self._cached_tokens},
        }

    def _groq(self) -> Json:
        groq: Json = {"id": self._plan.request_id}
        if self._plan.seed is not None:
            groq["seed"] = self._plan.seed
        return groq

    def _envelope(self, kind: str) -> Json:
        plan = self._plan
        return {
            "id": f"chatcmpl-{plan.request_id}",
            "object": kind,
            "created": plan.created,
            "model": plan.model,
            "system_fingerprint": _FINGERPRINT,
        }


def _decoded(data: bytes, *, fault: bool = True) -> Json:
    try:
        event = msgspec.json.decode(data, type=dict[str, Any])
    except _UNREADABLE:
        raise EngineFaultError from None
    if fault and "error" in event:
        raise EngineFaultError
    return event


def _events(chunks: list[Json]) -> bytes:
    return b"".join(b"data: " + _encode(chunk) + b"\n\n" for chunk in chunks)


def _logprobs(event: Json) -> list[Json] | None:
    """The log probabilities without the engine's token ids."""
    content = (event.get("logprobs") or {}).get("content")
    if not content:
        return None
    return [
        {**_token(entry), "top_logprobs": [_token(top) for top in entry.get("top_logprobs") or []]} for entry in content
    ]


def _token(entry: Json) -> Json:
    return {name: entry.get(name) for name in ("token", "logprob", "bytes")}


def _object(text: str) -> Json | None:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except _UNREADABLE:
        return None


def _refusal(code: str, what: str, text: str) -> bytes:
    """Groq's answer to an answer that failed. It shows the client its own text; in no exception, and never kept."""
    message = f"{what} Please adjust your prompt. See 'failed_generation' for more details."
    error = {"message": message, "type": "invalid_request_error", "code": code, "param": None}
    error["failed_generation"] = text
    return _encode({"error": error})
