"""Customer bytes, sealed: what a customer sent or was answered exists in this process only as `Content`.

Holds: `Content`, the wrapper, and `Purpose`, the closed list of reasons for which its bytes may be taken out.
Leaves out: encryption (vault), the decision whether anything may be kept (policy).

`Content` is not a `str` or `bytes`, and every everyday way of turning an object into text or bytes either shows
its size only or raises `ContentLeakError`. The single way out is `reveal(purpose)`; a lint rule names the files
that may call it.
"""

from enum import StrEnum
from typing import Final, NoReturn, SupportsIndex, final

__all__ = ["Content", "ContentLeakError", "Purpose"]

_OPAQUE: Final = "content is opaque; take it out with reveal(purpose)"


@final
class Purpose(StrEnum):
    """Why the bytes of a `Content` are taken out. Closed: a new purpose is a decision (ADR), not a convenience."""

    INFERENCE = "inference"  # handed to the engine that answers this very request
    LOAD = "load"  # a customer's own weights, handed to the engine that answers with them
    SEAL = "seal"  # handed to the vault's encryptor
    BREAK_GLASS = "break_glass"  # shown to a person under an approved opening request
    CUSTOMER = "customer"  # handed back to the customer whose content it is
    TRAIN = "train"  # handed to the process that trains its owner's own model, and read there
    EXPORT = "export"  # streamed to an owner who takes everything along before it is destroyed
    PROVE = "prove"  # compared with the prover's own markers


class ContentLeakError(TypeError):
    """Customer content cannot be copied, compared, iterated, serialised or turned into text."""


@final
class Content:
    """Sealed customer bytes. `size` (bytes) is the only thing it tells without a purpose."""

    __slots__ = ("__data",)

    def __init__(self, data: bytes) -> None:
        self.__data: Final = data

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self.__data)

    def reveal(self, purpose: Purpose) -> bytes:
        """The bytes, for one listed purpose. Raises `ContentLeakError` for anything that is not a `Purpose`."""
        if type(purpose) is not Purpose:
            raise ContentLeakError("content is revealed only for a listed purpose")
        return self.__data

    def __repr__(self) -> str:
        return f"<Content {len(self.__data)} bytes>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __init_subclass__(cls) -> NoReturn:
        raise ContentLeakError("Content is final")

    def __eq__(self, other: object) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __ne__(self, other: object) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __hash__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __iter__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __len__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __bool__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __bytes__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __reduce__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __getstate__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __copy__(self) -> NoReturn:
        raise ContentLeakError(_OPAQUE)

    def __deepcopy__(self, memo: object) -> NoReturn:
        raise ContentLeakError(_OPAQUE)
