"""A checked request of /responses as one of chat completions, for engines that know only those.

Holds: `to_chat` and `PARAMS` (how a parameter of chat is called here). Leaves out: the checks (response_params,
response_items), the way back (response_answer, response_events).

What goes along: everything that chat has a word for. Reasoning of earlier turns does not: a chat engine has no place
for it. Metadata does not either: it is echoed, and nobody but its sender needs it.
"""

from collections.abc import Iterable
from typing import Any, Final

from keepless.gateway.response_params import ResponseRequest
from keepless.gateway.values import unsupported

__all__ = ["PARAMS", "to_chat"]

Json = dict[str, Any]

_SAME: Final = (
    "stream", "temperature", "top_p", "parallel_tool_calls", "user", "safety_identifier", "prompt_cache_key",
    "prompt_cache_options", "service_tier",
)  # fmt: skip
_USAGE: Final = {"include_usage": True}
_ONLY_TEXT: Final = frozenset({"input_text", "output_text", "text"})

PARAMS: Final = {
    "messages": "input",
    "max_completion_tokens": "max_output_tokens",
    "max_tokens": "max_output_tokens",
    "response_format": "text.format",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}


def to_chat(checked: ResponseRequest) -> Json:
    """The body of a chat request that asks for the same. Raises `Problem` (400) for what chat has no word for."""
    body = checked.body
    asked: Json = {"model": body["model"], "messages": _messages(body)}
    asked.update({name: body[name] for name in _SAME if name in body})
    if checked.stream:
        asked["stream_options"] = _USAGE
    if checked.max_tokens is not None:
        asked["max_completion_tokens"] = checked.max_tokens
    if checked.logprobs:
        asked["logprobs"] = True
        asked["top_logprobs"] = int(body.get("top_logprobs", 0))
    effort = body.get("reasoning", {}).get("effort")
    if effort is not None and effort != "none":
        asked["reasoning_effort"] = effort
    text = body.get("text", {})
    if text.get("verbosity") not in (None, "medium"):
        asked["verbosity"] = text["verbosity"]
    form = text.get("format")
    if form is not None and form["type"] != "text":
        asked["response_format"] = _format(form)
    if body.get("tools"):
        asked.update(_tools(body["tools"], body.get("tool_choice")))
    return asked


def _format(form: Json) -> Json:
    if form["type"] == "json_object":
        return {"type": "json_object"}
    schema = {key: form[key] for key in ("name", "description", "schema", "strict") if form.get(key) is not None}
    return {"type": "json_schema", "json_schema": schema}


def _tools(tools: list[Json], choice: Any) -> Json:
    """The functions, and which may be called: of a list of allowed ones only those are offered at all."""
    if type(choice) is dict and choice["type"] == "allowed_tools":
        names = {tool.get("name") for tool in choice["tools"]}
        tools, choice = [tool for tool in tools if tool["name"] in names], choice["mode"]
    elif type(choice) is dict:
        choice = {"type": "function", "function": {"name": choice["name"]}}
    keys = ("name", "description", "parameters", "strict")
    offered = [
        {"type": "function", "function": {key: tool[key] for key in keys if tool.get(key) is not None}}
        for tool in tools
    ]
    return {"tools": offered} if choice is None else {"tools": offered, "tool_choice": choice}


def _messages(body: Json) -> list[Json]:
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body["input"]
    if type(given) is str:
        return [*messages, {"role": "user", "content": given}]
    for index, item in enumerate(given):
        kind = item.get("type", "message")
        if kind == "message":
            messages.append(_message(f"input[{index}].content", item))
        elif kind == "function_call":
            _call(messages, item)
        elif kind == "function_call_output":
            output = _content(f"input[{index}].output", item["output"])
            if type(output) is not str:
                raise unsupported(f"input[{index}].output", "an output other than text")
            messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": output})
    return messages


def _message(where: str, item: Json) -> Json:
    role, content = item["role"], item["content"]
    if role != "assistant" or type(content) is str:
        return {"role": role, "content": _content(where, content)}
    message: Json = {"role": role, "content": _joined(part for part in content if part["type"] != "refusal")}
    refusals = [part["refusal"] for part in content if part["type"] == "refusal"]
    if refusals:
        message["refusal"] = "\n".join(refusals)
    return message


def _call(messages: list[Json], item: Json) -> None:
    """Calls that follow one another, or what was said before them, are one message."""
    function = {"name": item["name"], "arguments": item["arguments"]}
    call = {"id": item["call_id"], "type": "function", "function": function}
    if messages and messages[-1]["role"] == "assistant":
        messages[-1].setdefault("tool_calls", []).append(call)
    else:
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})


def _content(where: str, content: Any) -> Any:
    """A text where there is nothing else: every engine takes that."""
    if type(content) is str:
        return content
    if all(part["type"] in _ONLY_TEXT for part in content):
        return _joined(content)
    return [_part(f"{where}[{index}]", part) for index, part in enumerate(content)]


def _joined(parts: Iterable[Json]) -> str:
    return "\n".join(part["text"] for part in parts)


def _part(where: str, part: Json) -> Json:
    kind = part["type"]
    if kind in _ONLY_TEXT:
        return {"type": "text", "text": part["text"]}
    if kind == "input_image":
        if part.get("image_url") is None:
            raise unsupported(f"{where}.file_id")
        image = {"url": part["image_url"]}
        return {"type": "image_url", "image_url": image | _given(part, "detail")}
    if kind == "input_file":
        if part.get("file_url") is not None:
            raise unsupported(f"{where}.file_url")
        return {"type": "file", "file": _given(part, "file_data", "file_id", "filename")}
    return {"type": "input_audio", "input_audio": part["input_audio"]}


def _given(part: Json, *names: str) -> Json:
    return {name: part[name] for name in names if part.get(name) is not None}
