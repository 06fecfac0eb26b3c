"""What the server itself refuses, before a handler sees it: fixed texts and numbers of ours.

Holds: the problems of framing, size and time. Leaves out: what is wrong with a well-framed request (its handler).
"""

from keepless.errors import Code, ErrorType, Problem

__all__ = ["bad", "coded", "crowded", "full", "large_head", "other_version", "slow", "too_large", "too_many_fields"]


def too_large(limit: int, *, upload: bool = False) -> Problem:
    """The refusal of a body of more than `limit` bytes; of an upload with the setting that it comes from."""
    named = " (limits.file_bytes, and a mebibyte for the form around the file)" if upload else ""
    return Problem(413, Code.REQUEST_TOO_LARGE, f"The request body is larger than {limit} bytes{named}.", retry=False)


def bad(message: str, status: int = 400) -> Problem:
    """A refusal of what is not HTTP/1.1 as we read it."""
    return Problem(status, Code.BAD_HTTP, message, retry=False)


def coded() -> Problem:
    """The refusal of a body that would have to be decoded first; how large it is then, nobody knows before."""
    message = "A compressed body (content-encoding) is not served. Send it as it is."
    return Problem(415, Code.UNSUPPORTED_VALUE, message, retry=False)


def other_version() -> Problem:
    """The refusal of a version of HTTP that is not ours."""
    return Problem(505, Code.BAD_HTTP, "This server speaks HTTP/1.1 only.", type=ErrorType.SERVER, retry=False)


def too_many_fields(limit: int) -> Problem:
    """The refusal of more than `limit` header fields."""
    return Problem(431, Code.HEADERS_TOO_LARGE, f"The request has more than {limit} header fields.", retry=False)


def large_head(limit: int) -> Problem:
    """The refusal of a head, or a trailer section, of more than `limit` bytes."""
    return Problem(
        431, Code.HEADERS_TOO_LARGE, f"A header section of the request is larger than {limit} bytes.", retry=False
    )


def slow() -> Problem:
    """The refusal of a client that takes too long to say what it wants."""
    return Problem(408, Code.CLIENT_TIMEOUT, "The request did not arrive in time.")


def crowded() -> Problem:
    """The refusal of a body for which there is no memory at the moment."""
    return Problem(
        503,
        Code.OVERLOADED,
        "The server holds as much of request bodies as it may. Please try again shortly.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )


def full() -> Problem:
    """The refusal of a connection beyond the limit."""
    return Problem(
        503,
        Code.OVERLOADED,
        "The server holds as many connections as it may.",
        type=ErrorType.SERVER,
        headers={"retry-after": "1"},
    )
