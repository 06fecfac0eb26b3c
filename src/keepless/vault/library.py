"""The object store library's own threads, started while there is room for them.

Holds: `start_library`. Leaves out: the drivers (blobs).

obstore makes its runtime (threads, some descriptors) at the first call. When a process has no descriptor left in that
moment the library panics, and every later call with it: nothing could be kept, read or destroyed until a restart.
"""

import obstore
from obstore.store import MemoryStore

from keepless.errors import ConfigError

__all__ = ["start_library"]


def start_library() -> None:
    """Make the first call, of nothing. Raises `ConfigError`."""
    try:
        obstore.put(MemoryStore(), "first", b"", use_multipart=False)
    except BaseException:  # a panic of the library is no `Exception`
        raise ConfigError("this process may open too few files: raise its limit (ulimit -n)") from None
