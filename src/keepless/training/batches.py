"""Which texts stand in which step, and in which pieces a step is computed so that memory stays bounded.

Holds: `steps_in`, `batch_at`, `parts_of`. Leaves out: torch. All of it follows from the seed alone: who goes on at a
step of an earlier run has the same batches without having kept anything of them.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

__all__ = ["PART_TOKENS", "batch_at", "parts_of", "steps_in"]

PART_TOKENS: Final = 2048  # computed at once, padding included, unless one text alone is longer


def steps_in(texts: int, batch_size: int) -> int:
    """Steps of one epoch."""
    return -(-texts // batch_size)


def batch_at(step: int, texts: int, batch_size: int, seed: int) -> list[int]:
    """The texts of a step (counted from 0): a stretch of the epoch's own order."""
    epoch, turn = divmod(step, steps_in(texts, batch_size))
    order = np.random.default_rng([seed, epoch]).permutation(texts)
    found: list[int] = order[turn * batch_size : (turn + 1) * batch_size].tolist()
    return found


def parts_of(lengths: Sequence[int]) -> list[list[int]]:
    """Texts of a batch (by their place in it) that are computed together: of like length, within `PART_TOKENS`."""
    parts: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda place: (-lengths[place], place)):
        # The longest of a part comes first and says how wide it is.
        if parts and (len(parts[-1]) + 1) * lengths[parts[-1][0]] <= PART_TOKENS:
            parts[-1].append(place)
        else:
            parts.append([place])
    return parts
