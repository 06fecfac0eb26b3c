"""An adapter that somebody else trained: whether its ZIP may become one of ours, and the one that it becomes.

Holds: `checked`, `Defect`, `AdapterError`, `most_bytes`. Leaves out: files and jobs (whoever calls it), how we keep and
serve adapters (inference.embedded.adapter). Pure: bytes in, bytes out.

Nothing of what comes in is kept as it is. The steps, each with bounds that follow from the base model:
1. The archive's end is read by us: one disk, no comment, no 64-bit form, exactly two entries in a small directory.
2. Its entries are the two names, not encrypted, stored or deflated; each is inflated up to its bound and not a byte on.
3. The configuration is that of plain LoRA: whatever else changes the arithmetic must be absent or off.
4. The safetensors header is read by us: names, types, shapes and places are checked before a number is looked at.
   Anything else under that name (a pickle, say) is no such header; nothing in the file is ever executed.
5. Tensors must be those of the base model's modules, A and B of each, of the rank that the configuration says, finite.
6. A new archive is made out of the numbers alone.
"""

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from enum import StrEnum
from struct import Struct, error
from typing import Any, Final

import msgspec
import numpy as np

from keepless.errors import KeeplessError
from keepless.inference.embedded.adapter import CONFIG, RANKS, WEIGHTS, Array, Base, key, pack

__all__ = ["AdapterError", "Defect", "checked", "most_bytes"]

_END: Final = Struct("<4s4H2LH")
_LOCATOR: Final = b"PK\x06\x07"  # of the 64-bit form
_LOCATOR_SIZE: Final = 20
_DIRECTORY_LIMIT: Final = 4096
_CONFIG_LIMIT: Final = 64 * 1024
_HEADER_LIMIT: Final = 1024 * 1024
_SLACK: Final = 64 * 1024  # of the archive itself
_PIECE: Final = 1024 * 1024
_MOST_ALPHA: Final = 1024
_ENCRYPTED: Final = 0x1
_U64: Final = Struct("<Q")
_TYPES: Final = {"F32": 4, "F16": 2, "BF16": 2}
_BROKEN: Final = (
    zipfile.BadZipFile,
    zlib.error,
    error,
    EOFError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeError,
    ValueError,
)
# Members of peft's configuration that say where an adapter comes from, not what it does.
_IDLE: Final = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "target_modules",
    }
)
_SET: Final = frozenset({"bias", "init_lora_weights", "lora_alpha", "peft_type", "r", "task_type"})
# Ways to begin that leave the base model as it is; others change it, and the adapter means nothing without that.
_BEGINNINGS: Final = (None, "gaussian", "eva", "orthogonal")


class Defect(StrEnum):
    """Why an adapter is not taken. Closed; told to the customer as it is."""

    TOO_LARGE = "adapter_too_large"
    NOT_A_ZIP = "adapter_not_a_zip"
    FILES = "adapter_files"  # not exactly the two
    CONFIG = "adapter_config_invalid"
    RANK = "adapter_rank"
    UNSUPPORTED = "adapter_unsupported"  # something that is not plain LoRA
    WEIGHTS = "adapter_weights_invalid"  # not safetensors, or damaged
    TENSOR = "adapter_tensor_unknown"  # not one of the base model's modules
    SHAPE = "adapter_tensor_shape"
    TYPE = "adapter_tensor_type"
    INCOMPLETE = "adapter_incomplete"  # an A without its B, or nothing at all
    NOT_FINITE = "adapter_not_finite"


class AdapterError(KeeplessError):
    """The adapter is not taken; `defect` says why."""

    def __init__(self, defect: Defect) -> None:
        super().__init__(defect.value)
        self.defect: Final = defect


class _Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tensor, as the header has it."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def most_bytes(base: Base) -> int:
    """The largest ZIP that can be an adapter of this base."""
    return _most_weights(base) + _CONFIG_LIMIT + _SLACK


def checked(data: bytes, base: Base, name: str) -> bytes:
    """The ZIP as we keep it. `name`: the id of the base model. Raises `AdapterError`."""
    if len(data) > most_bytes(base):
        raise AdapterError(Defect.TOO_LARGE)
    weights, config = _files(data, base)
    r, alpha = _configured(config)
    places, start = _places(weights)
    _fit(places, base, r)
    return pack({n: _numbers(weights, start, place) for n, place in places.items()}, r=r, alpha=alpha, base=name)


def _most_weights(base: Base) -> int:
    numbers = sum(outputs + inputs for outputs, inputs in base.shapes.values()) * max(RANKS) * base.layers
    return numbers * max(_TYPES.values()) + _HEADER_LIMIT


# -- the archive -------------------------------------------------------------------------------------------------------


def _files(data: bytes, base: Base) -> tuple[bytes, bytes]:
    """The two files, inflated."""
    _check_end(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if sorted(entry.orig_filename for entry in entries) != sorted((WEIGHTS, CONFIG)):
                raise AdapterError(Defect.FILES)
            found = {entry.orig_filename: entry for entry in entries}
            return _inflated(archive, found[WEIGHTS], _most_weights(base)), _inflated(
                archive, found[CONFIG], _CONFIG_LIMIT
            )
    except _BROKEN:
        raise AdapterError(Defect.NOT_A_ZIP) from None


def _check_end(data: bytes) -> None:
    """What says how much of a directory there is: checked before anything is made of it."""
    if len(data) < _END.size:
        raise AdapterError(Defect.NOT_A_ZIP)
    magic, disk, first_disk, here, entries, size, at, comment = _END.unpack_from(data, len(data) - _END.size)
    if magic != b"PK\x05\x06" or (disk, first_disk, comment) != (0, 0, 0) or here != entries:
        raise AdapterError(Defect.NOT_A_ZIP)
    if size > _DIRECTORY_LIMIT or at + size + _END.size != len(data):
        raise AdapterError(Defect.NOT_A_ZIP)
    if data[len(data) - _END.size - _LOCATOR_SIZE :].startswith(_LOCATOR):
        raise AdapterError(Defect.NOT_A_ZIP)
    if entries != 2:
        raise AdapterError(Defect.FILES)


def _inflated(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    if entry.flag_bits & _ENCRYPTED or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise AdapterError(Defect.NOT_A_ZIP)
    if entry.file_size > limit:
        raise AdapterError(Defect.TOO_LARGE)
    out = bytearray()
    with archive.open(entry) as file:
        # What the directory says of sizes may be a lie; what comes out is counted.
        while piece := file.read(_PIECE):
            out += piece
            if len(out) > limit:
                raise AdapterError(Defect.TOO_LARGE)
    return bytes(out)


# -- the configuration -------------------------------------------------------------------------------------------------


def _configured(data: bytes) -> tuple[int, float]:
    """Rank and alpha."""
    try:
        config = msgspec.json.decode(data, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise AdapterError(Defect.CONFIG) from None
    r, alpha = config.get("r"), config.get("lora_alpha")
    if type(r) is not int or r not in RANKS:
        raise AdapterError(Defect.RANK)
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= _MOST_ALPHA:
        raise AdapterError(Defect.CONFIG)
    beginning = config.get("init_lora_weights", True)
    plain = (
        config.get("peft_type") == "LORA"
        and config.get("task_type") in (None, "CAUSAL_LM")
        and config.get("bias", "none") == "none"
        and (type(beginning) is bool or beginning in _BEGINNINGS)
    )
    if not plain or any(value for member, value in config.items() if member not in _IDLE | _SET):
        raise AdapterError(Defect.UNSUPPORTED)
    return r, alpha


# -- the weights -------------------------------------------------------------------------------------------------------


def _places(data: bytes) -> tuple[dict[str, _Place], int]:
    """Every tensor of the file, and where their bytes begin. Together they are all of it, and none lies on another."""
    if len(data) < _U64.size:
        raise AdapterError(Defect.WEIGHTS)
    start = _U64.size + _U64.unpack_from(data)[0]
    if start > min(len(data), _HEADER_LIMIT):
        raise AdapterError(Defect.WEIGHTS)
    try:
        header = msgspec.json.decode(data[_U64.size : start], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        places = {name: msgspec.json.decode(raw, type=_Place) for name, raw in header.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise AdapterError(Defect.WEIGHTS) from None
    at = 0
    for place in sorted(places.values(), key=lambda place: place.data_offsets):
        if place.dtype not in _TYPES:
            raise AdapterError(Defect.TYPE)
        begin, end = place.data_offsets
        if any(length < 0 for length in place.shape):
            raise AdapterError(Defect.WEIGHTS)
        if begin != at or end - begin != math.prod(place.shape) * _TYPES[place.dtype]:
            raise AdapterError(Defect.WEIGHTS)
        at = end
    if start + at != len(data):
        raise AdapterError(Defect.WEIGHTS)
    return places, start


def _fit(places: Mapping[str, _Place], base: Base, r: int) -> None:
    sides: dict[tuple[int, str], set[str]] = {}
    for name, place in places.items():
        found = key(name)
        if found is None or found[0] >= base.layers or found[1] not in base.shapes:
            raise AdapterError(Defect.TENSOR)
        layer, module, side = found
        outputs, inputs = base.shapes[module]
        if place.shape != ([r, inputs] if side == "A" else [outputs, r]):
            raise AdapterError(Defect.SHAPE)
        sides.setdefault((layer, module), set()).add(side)
    if not sides or any(found != {"A", "B"} for found in sides.values()):
        raise AdapterError(Defect.INCOMPLETE)


def _numbers(data: bytes, start: int, place: _Place) -> Array:
    begin, end = place.data_offsets
    raw = memoryview(data)[start + begin : start + end]
    if place.dtype == "BF16":  # the upper half of a 32-bit float
        found = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        found = np.frombuffer(raw, "<f4" if place.dtype == "F32" else "<f2").astype(np.float32)
    if not np.isfinite(found).all():
        raise AdapterError(Defect.NOT_FINITE)
    return found.reshape(place.shape)
