"""Strangers' adapters: what is taken becomes one form, and whatever else comes in is one of a few words."""

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keepless.inference.embedded.adapter import CONFIG, WEIGHTS, unpack
from keepless.tuning.adapter import AdapterError, Defect, checked, most_bytes
from tests.support.adapters import BASE, PEFT, adapter_zip, safetensors, tensors, with_header, zipped

Q_A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
Q_B = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
RIGHT = tensors()
SAFE = safetensors(RIGHT)
CONFIGURED = json.dumps(PEFT).encode()


def defect(data: bytes) -> Defect:
    with pytest.raises(AdapterError) as caught:
        checked(data, BASE, "base")
    assert str(caught.value) == caught.value.defect.value
    return caught.value.defect


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [8, 16, 32, 64])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED], ids=["stored", "deflated"])
def test_what_peft_saves_is_taken(r: int, compression: int) -> None:
    adapter = unpack(checked(adapter_zip(tensors(r=r), compression, r=r, lora_alpha=2 * r), BASE, "base"))
    assert (adapter.r, adapter.alpha) == (r, 2 * r)
    for name, (_, shape, data) in tensors(r=r).items():
        assert adapter.tensors[name].dtype == np.float32
        assert (list(adapter.tensors[name].shape), adapter.tensors[name].tobytes()) == (shape, data)


def test_it_becomes_one_form_whoever_made_it() -> None:
    normal = checked(adapter_zip(), BASE, "base")
    assert checked(normal, BASE, "base") == normal
    turned = dict(reversed(RIGHT.items()))
    assert (
        checked(adapter_zip(safetensors(turned, format="pt"), revision="main", peft_version="0.1"), BASE, "base")
        == normal
    )
    with zipfile.ZipFile(io.BytesIO(normal)) as archive:
        assert archive.namelist() == [WEIGHTS, CONFIG]
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        config = json.loads(archive.read(CONFIG))
    assert config["base_model_name_or_path"] == "base"
    assert set(config["target_modules"]) == {
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
    }


@pytest.mark.parametrize(("dtype", "exact"), [("F16", np.float16), ("BF16", None)])
def test_halves_become_floats(dtype: str, exact: Any) -> None:
    adapter = unpack(checked(adapter_zip(tensors(dtype=dtype)), BASE, "base"))
    original = np.frombuffer(RIGHT[Q_A][2], "<f4").reshape(8, 16)
    found = adapter.tensors[Q_A]
    assert found == pytest.approx(original, rel=0.01, abs=1e-3)
    if exact is not None:
        assert (found == original.astype(exact)).all()
    else:
        assert (found.view(np.uint32) & 0xFFFF == 0).all()


def test_a_part_of_the_modules_will_do() -> None:
    some = {name: tensor for name, tensor in RIGHT.items() if "q_proj" in name or "down_proj" in name}
    with zipfile.ZipFile(io.BytesIO(checked(adapter_zip(some), BASE, "base"))) as archive:
        assert json.loads(archive.read(CONFIG))["target_modules"] == ["down_proj", "q_proj"]


# -- the archive -------------------------------------------------------------------------------------------------------


def raw_zip(change: Callable[[zipfile.ZipFile], None]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        change(archive)
    return out.getvalue()


def encrypted(data: bytes) -> bytes:
    """The flag alone: in the local headers and in the directory."""
    changed = bytearray(data)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = changed.find(magic)
        while place >= 0:
            changed[place + at] |= 1
            place = changed.find(magic, place + 1)
    return bytes(changed)


def test_exactly_the_two_files() -> None:
    both = {WEIGHTS: SAFE, CONFIG: CONFIGURED}
    assert defect(zipped({})) is Defect.FILES
    assert defect(zipped({WEIGHTS: SAFE})) is Defect.FILES
    assert defect(zipped(both | {"README.md": b""})) is Defect.FILES
    assert defect(zipped(both | {"x/": b""})) is Defect.FILES
    for name in (f"../{WEIGHTS}", f"/{WEIGHTS}", f"a/{WEIGHTS}", f"./{WEIGHTS}", WEIGHTS.upper(), "adapter_model.bin"):
        assert defect(zipped({name: SAFE, CONFIG: CONFIGURED})) is Defect.FILES, name
    assert defect(raw_zip(lambda a: (a.writestr(WEIGHTS, SAFE), a.writestr(CONFIG, b"")))) is Defect.CONFIG


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_or_cut_by_a_zero_is_none_of_ours() -> None:
    assert defect(raw_zip(lambda a: (a.writestr(CONFIG, CONFIGURED), a.writestr(CONFIG, CONFIGURED)))) is Defect.FILES
    data = zipped({WEIGHTS + "X.exe": SAFE, CONFIG: CONFIGURED}).replace(
        (WEIGHTS + "X.exe").encode(), (WEIGHTS + "\0.exe").encode()
    )
    assert defect(data) in (Defect.FILES, Defect.NOT_A_ZIP)


def test_what_is_no_plain_archive() -> None:
    right = adapter_zip()
    for data in (b"", b"PK", bytes(100), right[:-1], right[1:], right + b"x", b"x" + right, SAFE, encrypted(right)):
        assert defect(data) is Defect.NOT_A_ZIP
    commented = io.BytesIO(right)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"hello"
    assert defect(commented.getvalue()) is Defect.NOT_A_ZIP
    for compression in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert defect(adapter_zip(None, compression)) is Defect.NOT_A_ZIP
    damaged = bytearray(adapter_zip(None, zipfile.ZIP_STORED))
    damaged[2000] ^= 1
    assert defect(bytes(damaged)) is Defect.NOT_A_ZIP  # the checksum


def test_a_directory_of_many_entries_is_not_read() -> None:
    """The end says how many there are; that alone decides."""
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 60_000, 60_000, 4000, 0, 0)
    assert defect(bytes(4000) + end) is Defect.FILES
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 40_000, 0, 0)
    assert defect(bytes(40_000) + end) is Defect.NOT_A_ZIP
    locator = b"PK\x06\x07" + bytes(16)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 2, 2, 20, 0, 0)
    assert defect(locator + end) is Defect.NOT_A_ZIP


def lying(data: bytes, name: str, size: int) -> bytes:
    """The same archive, its directory saying another size of one file."""
    changed = bytearray(data)
    place = changed.rfind(name.encode())
    assert changed[place - 46 : place - 42] == b"PK\x01\x02"
    changed[place - 46 + 24 : place - 46 + 28] = struct.pack("<L", size)
    return bytes(changed)


def test_bombs_are_stopped_at_their_bound() -> None:
    honest = zipped({WEIGHTS: bytes(20_000_000), CONFIG: CONFIGURED})
    assert len(honest) < most_bytes(BASE)
    for data, expected in (
        (honest, {Defect.TOO_LARGE}),
        (lying(honest, WEIGHTS, 1000), {Defect.NOT_A_ZIP, Defect.TOO_LARGE}),
        (zipped({WEIGHTS: SAFE, CONFIG: bytes(5_000_000)}), {Defect.TOO_LARGE}),
    ):
        tracemalloc.start()
        assert defect(data) in expected
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 3 * most_bytes(BASE)
    assert defect(bytes(most_bytes(BASE) + 1)) is Defect.TOO_LARGE


# -- the configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [None, 0, 1, 7, 12, 128, "8", 8.0, True], ids=repr)
def test_other_ranks(r: Any) -> None:
    assert defect(adapter_zip(r=r)) is Defect.RANK


@pytest.mark.parametrize("alpha", [None, 0, -1, 1025, "16", True, [16]], ids=repr)
def test_other_alphas(alpha: Any) -> None:
    assert defect(adapter_zip(lora_alpha=alpha)) is Defect.CONFIG


@pytest.mark.parametrize(
    "member",
    [
        {"peft_type": "LOHA"},
        {"peft_type": None},
        {"task_type": "SEQ_CLS"},
        {"bias": "all"},
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"modules_to_save": ["lm_head"]},
        {"rank_pattern": {"q_proj": 4}},
        {"alpha_pattern": {"q_proj": 4}},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [1]},
        {"alora_invocation_tokens": [1, 2]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": 1},
        {"init_lora_weights": ["gaussian"]},
        {"of_the_future": {"on": True}},
    ],
    ids=json.dumps,
)
def test_what_is_not_plain_lora(member: dict[str, Any]) -> None:
    assert defect(adapter_zip(**member)) is Defect.UNSUPPORTED


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"null", b"[" * 60_000, b'{"r": NaN}'], ids=range(7))
def test_a_configuration_that_is_none(text: bytes) -> None:
    assert defect(zipped({WEIGHTS: SAFE, CONFIG: text})) is Defect.CONFIG


# -- the weights -------------------------------------------------------------------------------------------------------


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("it was run",))


def test_a_pickle_is_never_opened() -> None:
    for data in (pickle.dumps(Boom()), zipped({"archive/data.pkl": pickle.dumps(Boom())})):
        assert defect(adapter_zip(data)) is Defect.WEIGHTS


def header(**changes: Any) -> bytes:
    place = {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 512]}
    return with_header({Q_A: place | changes}, bytes(512))


@pytest.mark.parametrize(
    "weights",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 100) + b"{}",
        with_header(b"[" * 100_000, b""),
        with_header({"x": 1}, b""),
        with_header({}, b"x"),
        header(data_offsets=[0, 511]),
        header(data_offsets=[1, 513]),
        header(data_offsets=[-512, 0]),
        header(data_offsets=[512, 0]),
        header(data_offsets=[0]),
        header(shape=[8, 15]),
        header(shape=[-8, -16]),
        header(shape=[2**62, 2**62]),
        header(shape="8"),
        header(extra=1),
        with_header(
            {
                Q_A: {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 512]},
                Q_B: {"dtype": "F32", "shape": [16, 8], "data_offsets": [0, 512]},
            },
            bytes(512),
        ),
    ],
    ids=range(19),
)
def test_weights_that_are_none(weights: bytes) -> None:
    assert defect(adapter_zip(weights)) is Defect.WEIGHTS


def but(name: str, dtype: str, shape: list[int], size: int) -> bytes:
    return adapter_zip(RIGHT | {name: (dtype, shape, bytes(size))})


def test_tensors_are_those_of_the_base_model() -> None:
    assert defect(but(Q_A, "F32", [16, 8], 512)) is Defect.SHAPE
    assert defect(but(Q_A, "F32", [4, 16], 256)) is Defect.SHAPE
    assert defect(but(Q_A, "F32", [128], 512)) is Defect.SHAPE
    assert defect(but(Q_A, "F32", [0, 16], 0)) is Defect.SHAPE
    assert defect(but(Q_A, "I32", [8, 16], 512)) is Defect.TYPE
    assert defect(but(Q_A, "F64", [8, 16], 1024)) is Defect.TYPE
    assert defect(adapter_zip(r=16)) is Defect.SHAPE
    for name in (
        Q_A.replace("layers.0", "layers.2"),
        Q_A.replace("layers.0", "layers.00"),
        Q_A.replace("layers.0", "layers.٢"),
        Q_A.replace("q_proj", "w_proj"),
        Q_A.replace("lora_A", "lora_magnitude_vector"),
        Q_A.replace(".weight", ".default.weight"),
        "base_model.model.lm_head.weight",
        "x",
    ):
        assert defect(but(name, "F32", [8, 16], 512)) is Defect.TENSOR, name


def test_pairs_are_whole() -> None:
    assert defect(adapter_zip({})) is Defect.INCOMPLETE
    for name in (Q_A, Q_B):
        assert defect(adapter_zip({n: t for n, t in RIGHT.items() if n != name})) is Defect.INCOMPLETE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_numbers_are_finite(value: float) -> None:
    wrong = np.full((8, 16), value, "<f4").tobytes()
    assert defect(adapter_zip(RIGHT | {Q_A: ("F32", [8, 16], wrong)})) is Defect.NOT_FINITE


# -- anything ----------------------------------------------------------------------------------------------------------

STORED = adapter_zip(None, zipfile.ZIP_STORED)
PACKED = adapter_zip()


def takes_or_says(data: bytes) -> None:
    try:
        normal = checked(data, BASE, "base")
    except AdapterError:
        return
    assert checked(normal, BASE, "base") == normal


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([STORED, PACKED]),
    st.lists(st.tuples(st.integers(0, len(STORED)), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4),
    st.booleans(),
)
def test_a_damaged_archive_is_taken_or_a_word(data: bytes, damage: list[tuple[int, bytes]], at_end: bool) -> None:
    changed = bytearray(data)
    for place, what in damage:
        at = max(0, len(changed) - place % 700) if at_end else place % len(changed)
        changed[at : at + len(what)] = what
    takes_or_says(bytes(changed))


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_any_two_files_are_a_word(weights: bytes, config: bytes) -> None:
    takes_or_says(zipped({WEIGHTS: weights, CONFIG: config}))
    takes_or_says(zipped({WEIGHTS: SAFE, CONFIG: config}))
    takes_or_says(weights)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PEFT)), JSON, st.sampled_from(["dtype", "shape", "data_offsets"]))
def test_any_value_anywhere_is_taken_or_a_word(member: str, value: Any, part: str) -> None:
    takes_or_says(adapter_zip(SAFE, zipfile.ZIP_STORED, **{member: value}))
    place = {"dtype": "F32", "shape": [8, 16], "data_offsets": [0, 512]}
    takes_or_says(adapter_zip(with_header({Q_A: place | {part: value}}, bytes(512)), zipfile.ZIP_STORED))
