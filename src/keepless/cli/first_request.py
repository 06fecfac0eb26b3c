"""The first request of a new deployment: asked with the new key, over HTTP like anybody's, its answer shown.

What a newcomer wants to see at once: a real model answers, and the answer says that nothing of it was kept.
"""

import http.client
import json
from typing import Final
from urllib.parse import urlsplit

__all__ = ["QUESTION", "first_request"]

QUESTION: Final = "In one short sentence: what is the capital of France?"
_PATIENCE_S: Final = 60


def first_request(url: str, api_key: str, model: str) -> str:
    """Ask `model` the question; the lines to show. A failure is a line too, never an exception."""
    body = {"model": model, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 32, "temperature": 0}
    headers = {"authorization": f"Bearer {api_key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_PATIENCE_S)
    try:
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answered = connection.getresponse()
        if answered.status != 200:
            return f"A first request was refused with HTTP {answered.status}; see the log."
        answer, kept = json.load(answered), answered.headers["x-keepless-retention"]
    except (OSError, http.client.HTTPException, ValueError):
        return "A first request could not be sent; see the log."
    finally:
        connection.close()
    text = answer["choices"][0]["message"]["content"]
    return f"A first request, with the new key:\n  question      {QUESTION}\n  {model}: {text}\n  kept of it    {kept}"
