"""OpenAI's and Groq's request in llama.cpp's dialect, as pure functions of values.

Holds: `CAPABILITIES` (what this engine was seen to do), `to_llama`, `Plan` (what was asked, as the answer needs it),
`as_asked` (the messages alone, for who trains the model), `encode_problem`. Leaves out: the answer (answer), the checks
of types and ranges (gateway.chat_params, before this).

Only members named here reach the engine: what it would understand beyond them (cache, slots, adapters, grammars, paths)
is ours to set. The engine is always asked for a stream with usage, also when the client wants one JSON: then time-outs
mean silence instead of length, and the usage of several choices can be added up.

The embedded model's template knows no tools, so they are put into the system message and the answer is forced into
`{"name", "arguments"}` by a schema. With `auto` the model may answer `{"name": "none", "message"}` instead; a model
of this size chooses badly between the two, though what it writes is always well-formed. After a function's result it
answers in words. One call at most.
"""

from dataclasses import dataclass
from typing import Any, Final

import msgspec

from keepless.config import ModelConfig
from keepless.errors import Code, Problem
from keepless.inference.embedded.inert import Inert
from keepless.inference.embedded.schemas import LONGEST_STRING, bounded, refuse_schema, unsupported

__all__ = ["CAPABILITIES", "NONE", "Plan", "as_asked", "encode_problem", "not_json", "to_llama", "too_long"]

CAPABILITIES: Final = frozenset(
    {
        "streaming",
        "seed",
        "stop",
        "n",
        "logprobs",
        "logit_bias",
        "tools",
        "json_object",
        "json_schema",
    }
)
_SILENCE: Final = {"role": "assistant", "content": ""}
_ADAPTER: Final = [{"id": 0, "scale": 1.0}]
_LONGEST_TOKEN: Final = 256  # characters; twice what any vocabulary in use has
NONE: Final = "none"  # the name by which the model says that it calls nothing

# What the authors of the embedded weights recommend; for other weights the engine's own defaults hold.
_EMBEDDED_DEFAULTS: Final = {"temperature": 0.2, "top_p": 0.9}
_PASSED: Final = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "stop",
    "n",
)
_SEEDS: Final = 2**32 - 1  # the engine's are 32 bits, and the largest means "choose one"
# JSON whose length is bounded by the grammar: a small model otherwise goes on until it is stopped.
_JSON_GRAMMAR: Final = r"""
root ::= "{" ws (pair ("," ws pair){0,9})? "}"
pair ::= key ":" " "? value ws
key ::= "\"" [^"\\\x00-\x1f]{1,32} "\""
value ::= scalar | list | map
list ::= "[" ws (scalar ws ("," ws scalar ws){0,9})? "]"
map ::= "{" ws (flat ("," ws flat){0,7})? "}"
flat ::= key ":" " "? (scalar | "[" (scalar ("," " "? scalar){0,5})? "]") ws
scalar ::= string | number | "true" | "false" | "null"
string ::= "\"" ([^"\\\x00-\x1f] | "\\" ["\\/bfnrt]){0,120} "\""
number ::= "-"? ("0" | [1-9] [0-9]{0,14}) ("." [0-9]{1,6})?
ws ::= [ \n]{0,4}
"""
_ASK: Final = "You can call functions. Functions:\n"
_ASK_AUTO: Final = (
    '\nIf a function helps, answer with one JSON object {"name": ..., "arguments": {...}}. '
    'If no function helps, answer with {"name": "none", "message": "your answer"}.'
)
_ASK_FORCED: Final = '\nAnswer with one JSON object {"name": ..., "arguments": {...}}.'
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked. `started`: the event loop's time, seconds; `created`: Unix seconds."""

    request_id: str
    model: str
    created: int
    started: float
    stream: bool
    include_usage: bool
    seed: int | None
    choices: int
    tools: frozenset[str] | None  # names that the answer may call; None: the answer is plain
    forced: bool
    json: bool
    schema: str | None  # the parameter that brought a schema
    context: int


def to_llama(
    body: Json, model: ModelConfig, request_id: str, created: int, started: float, *, inert: Inert, tuned: bool = False
) -> tuple[Json, Plan]:
    """A checked request as the engine takes it, and what its answer needs to know. Raises `Problem` (400).

    `inert`: what keeps texts from spelling the model's control tokens.
    `tuned`: the engine's one adapter answers. The model's name is then the customer's own, and only the request has it.
    """
    choices = body.get("n") or 1
    if choices > model.parallel:
        raise Problem(400, Code.UNSUPPORTED_VALUE, f"'n' : this model gives at most {model.parallel}", param="n")
    messages = _fitting(body, model.context_window)
    asked: Json = {} if model.path else dict(_EMBEDDED_DEFAULTS)
    asked.update({name: body[name] for name in _PASSED if body.get(name) is not None})
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or model.max_completion_tokens
    asked["max_tokens"] = min(limit, model.max_completion_tokens)
    if body.get("seed") is not None:
        asked["seed"] = body["seed"] % _SEEDS
    kind = (body.get("response_format") or {}).get("type", "text")
    tools, forced = _offered(body)
    schema = None
    if tools and kind != "text":
        raise unsupported("response_format", "JSON mode together with tools")
    if tools and body.get("logprobs"):
        raise unsupported("logprobs", "logprobs together with tools")
    if tools and (forced or not _answered(body)):
        messages = _with_tools(_open_to_a_call(messages), tools, forced=forced)
        asked["response_format"] = {"type": "json_schema", "json_schema": {"schema": _call_schema(tools, forced)}}
        schema = "tools"
    elif kind == "json_schema":
        asked["response_format"] = {
            "type": "json_schema",
            "json_schema": {"schema": (body["response_format"].get("json_schema") or {}).get("schema") or {}},
        }
        schema = "response_format"
    elif kind == "json_object":
        asked["grammar"] = _JSON_GRAMMAR
    if schema is not None:
        refuse_schema(schema, asked["response_format"], strict=_strict(body, schema))
    asked["messages"] = [{**message, "content": inert(message["content"])} for message in messages]
    asked["stream"] = True
    asked["stream_options"] = {"include_usage": True}
    asked["cache_prompt"] = False
    asked["lora"] = _ADAPTER if tuned else []
    plan = Plan(
        request_id=request_id,
        model=str(body.get("model")) if tuned else model.id,
        created=created,
        started=started,
        stream=bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
        seed=body.get("seed"),
        choices=choices,
        tools=frozenset(tool["name"] for tool in tools) if schema == "tools" else None,
        forced=forced,
        json=kind != "text",
        schema=schema,
        context=model.context_window,
    )
    return asked, plan


def as_asked(messages: list[Json], tools: list[Json], *, forced: bool = False) -> list[Json]:
    """Messages as the model's template gets them when these functions are offered. Raises `Problem` (400)."""
    told = _messages(messages)
    if tools and (forced or not _answered({"messages": messages})):
        return _with_tools(told, tools, forced=forced)
    return told


def encode_problem(problem: Problem) -> bytes:
    """A refusal as an OpenAI-compatible engine would send it; `extra` may carry the answer's own text to the client."""
    error = {"message": problem.message, "type": problem.type, "code": problem.code, "param": problem.param}
    return msgspec.json.encode({"error": {**error, **problem.extra}})


def not_json() -> Problem:
    """The body is no JSON object."""
    return Problem(400, Code.INVALID_JSON, "The body is not a JSON object.")


def too_long(context: int, has: str = "") -> Problem:
    """More than the model's context holds; `has` is a sentence of ours with the count."""
    return Problem(
        400,
        Code.CONTEXT_LENGTH,
        f"This model's maximum context length is {context} tokens.{has} "
        "Please reduce the length of the messages or completion.",
        param="messages",
    )


# -- messages ---------------------------------------------------------------------------------------------------


def _fitting(body: Json, context: int) -> list[Json]:
    """The messages as the template knows them. Raises `Problem` (400) for those that cannot fit."""
    messages = _messages(body.get("messages") or [])
    if len(messages) > 1 and messages[-1] == _SILENCE:
        messages.pop()  # there is nothing to go on with
    if sum(len(message["content"]) for message in messages) > context * _LONGEST_TOKEN:
        # The engine would count the tokens of megabytes for seconds before it says so.
        raise too_long(context)
    return messages


def _open_to_a_call(messages: list[Json]) -> list[Json]:
    """The engine goes on with the assistant's own last words, so there is no place for a call behind them."""
    if messages and messages[-1]["role"] == "assistant":
        what = "a conversation that ends with the assistant's own message, together with tools,"
        raise unsupported("messages", what)
    return messages


def _messages(messages: list[Json]) -> list[Json]:
    """Roles that the template knows, contents as text; calls and their results in words."""
    names: dict[str, str] = {}
    out = []
    for message in messages:
        role, text = message.get("role"), _text(message.get("content"))
        if role == "developer":
            role = "system"
        elif role == "assistant" and message.get("tool_calls"):
            for call in message["tool_calls"]:
                name = call.get("function", {}).get("name", "")
                names[call.get("id", "")] = name
                text += ("\n" if text else "") + f"I will ask {name}: {call.get('function', {}).get('arguments', '')}"
        elif role in ("tool", "function"):
            name = names.get(message.get("tool_call_id", ""), "") or message.get("name") or "The function"
            role, text = "user", f"{name} answered: {text}\nNow answer my question."
        out.append({"role": role, "content": text})
    return out


def _text(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    parts: list[Json] = content
    if any(part.get("type") not in ("text", "refusal") for part in parts):
        raise unsupported("messages", "content other than text")
    return "\n".join(str(part.get(str(part.get("type"))) or "") for part in parts)


# -- tools ------------------------------------------------------------------------------------------------------


def _offered(body: Json) -> tuple[list[Json], bool]:
    """The functions that the answer may call and whether it must call one."""
    functions = [tool["function"] for tool in body.get("tools") or []]
    choice: Any = body.get("tool_choice") or "auto"
    if choice == "none":
        return [], False
    if choice in ("auto", "required"):
        if choice == "required" and not functions:
            raise Problem(400, Code.MISSING_PARAMETER, "'tool_choice' : there are no 'tools' to call", param="tools")
        return functions, choice == "required"
    named = [function for function in functions if function["name"] == choice["function"]["name"]]
    if not named:
        raise Problem(400, Code.INVALID_VALUE, "'tool_choice' : names none of 'tools'", param="tool_choice")
    return named, True


def _strict(body: Json, source: str) -> bool:
    """Whether the client wants its schema held to, not only followed as well as can be."""
    if source == "tools":
        return any(tool["function"].get("strict") is True for tool in body.get("tools") or [])
    return (body["response_format"].get("json_schema") or {}).get("strict") is True


def _answered(body: Json) -> bool:
    """Whether the last message is a function's result: then the model answers in words."""
    messages = body.get("messages") or [{}]
    return messages[-1].get("role") in ("tool", "function")


def _with_tools(messages: list[Json], tools: list[Json], *, forced: bool) -> list[Json]:
    listed = "\n".join(msgspec.json.encode(tool).decode() for tool in tools)
    ask = _ASK + listed + (_ASK_FORCED if forced else _ASK_AUTO)
    if messages and messages[0]["role"] == "system":
        return [{"role": "system", "content": f"{messages[0]['content']}\n\n{ask}"}, *messages[1:]]
    return [{"role": "system", "content": ask}, *messages]


def _call_schema(tools: list[Json], forced: bool) -> Json:
    calls = [
        _object({"name": {"const": tool["name"]}, "arguments": bounded(tool.get("parameters") or {"type": "object"})})
        for tool in tools
    ]
    if not forced:
        message = {"type": "string", "maxLength": 4 * LONGEST_STRING}
        calls.append(_object({"name": {"const": NONE}, "message": message}))
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def _object(properties: Json) -> Json:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
