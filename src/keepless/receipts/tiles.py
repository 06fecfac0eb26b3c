"""The log's public face as C2SP tlog-tiles: hashes only, so that anyone can rebuild the tree and watch it grow.

Holds: the path grammar and `tile`. Leaves out: HTTP (admin), checkpoints (log), and entry bundles: entries belong
to organizations and are never public (DECISIONS 16).

A tile at level L is up to 256 hashes of complete subtrees over 256**L leaves each. `<N>` is written in groups of
three digits, all but the last with an `x` in front; a partial tile ends in `.p/<W>`. A tile never changes once it
is full, and a partial tile of a given width never changes either.
"""

import re
from dataclasses import dataclass
from typing import Final

from keepless.db import Database
from keepless.receipts.log import Log

__all__ = ["TILE_WIDTH", "TilePath", "parse_path", "tile", "tile_path"]

TILE_WIDTH: Final = 256
_LEVEL_BITS: Final = 8
_MAX_LEVEL: Final = 7  # 256**8 entries are more than an index of 63 bits counts
_PATH: Final = re.compile(r"(0|[1-9])/((?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?\Z")


@dataclass(frozen=True, slots=True)
class TilePath:
    """A tile: its level, its index, and its width (256 = full)."""

    level: int
    index: int
    width: int = TILE_WIDTH


def parse_path(path: str) -> TilePath | None:
    """What a path below `/log/tile/` names; None when it is not the one canonical spelling of a tile."""
    match = _PATH.match(path)
    if match is None:
        return None
    level, groups, width = int(match[1]), match[2].replace("x", "").split("/"), int(match[3] or TILE_WIDTH)
    canonical_index = len(groups) == 1 or groups[0] != "000"
    if level > _MAX_LEVEL or not canonical_index or (match[3] is not None and width >= TILE_WIDTH):
        return None
    return TilePath(level, int("".join(groups)), width)


def tile_path(wanted: TilePath) -> str:
    """The canonical path of a tile, below `/log/tile/`."""
    digits = str(wanted.index)
    digits = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
    path = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
    partial = "" if wanted.width == TILE_WIDTH else f".p/{wanted.width}"
    return f"{wanted.level}/{path}{partial}"


def tile(db: Database, log: Log, path: str) -> bytes | None:
    """The bytes of a tile (32 a hash); None when the path names none or the log has not grown that far."""
    wanted = parse_path(path)
    if wanted is None:
        return None
    with db.read() as tx:
        hashes = log.nodes(tx, wanted.level * _LEVEL_BITS, wanted.index * TILE_WIDTH, wanted.width)
    return b"".join(hashes) if len(hashes) == wanted.width else None
