from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.modbus.cells import Cell
from bridge.modbus.codec import decode, encode


def cell(kind: str, **more: Any) -> Cell:
    return Cell("x", 1, 0, type=kind, **more)


@pytest.mark.parametrize(
    ("kind", "more", "words", "value"),
    [
        ("u16", {}, [0xFFFF], 65535.0),
        ("i16", {}, [0xFFFF], -1.0),
        ("u32", {}, [0x0001, 0x0002], 65538.0),
        ("u32", {"word_order": "le"}, [0x0001, 0x0002], 131073.0),
        ("i32", {"word_order": "le"}, [0xFFFF, 0xFFFF], -1.0),
        ("u64", {}, [0, 0, 1, 0], 65536.0),
        ("i64", {"word_order": "le"}, [0xFFFE, 0xFFFF, 0xFFFF, 0xFFFF], -2.0),
        ("f32", {}, [0x4366, 0x0000], 230.0),
        ("f32", {"word_order": "le"}, [0x0000, 0x4366], 230.0),
        ("f64", {}, [0x406C, 0xC000, 0, 0], 230.0),
        ("f32", {}, [0x7FC0, 0x0000], None),
        ("f32", {}, [0x7F80, 0x0000], None),
        ("bool", {}, [1], 1.0),
        ("u16", {"mask": 0x0F00}, [0xABCD], 11.0),
        ("u32", {"mask": 4}, [0, 7], 1.0),
        ("u16", {"na": frozenset({0xFFFE})}, [0xFFFE], None),
        ("u16", {"usual_na": True}, [0xFFFF], None),
        ("i16", {"usual_na": True}, [0x8000], None),
        ("i32", {"usual_na": True}, [0x7FFF, 0xFFFF], None),
        ("i16", {"usual_na": True}, [0xFFFF], -1.0),
        ("u16", {"values": {"2": "B"}}, [2], "B"),
        ("u16", {"values": {"2": "B"}}, [3], None),
        ("u16", {"values": {"2": "B"}, "default": "E"}, [3], "E"),
        ("u16", {"values": {"0": 1.0, "1": 3.0}}, [1], 3.0),
        ("u16", {"values": {"10": "A", "11": "B"}, "mask": 0xF0}, [0xFFB2], "B"),
        ("str", {}, [0x4142, 0x4300], "ABC"),
        ("str", {}, [0x0041], "A"),
        ("str", {"word_order": "le"}, [0x4142, 0x4344], "ABCD"),
        ("str_lsb", {}, [0x4241, 0x0043], "ABC"),
        ("str_utf16", {}, [0x0042, 0x00F6], "Bö"),
        ("str", {"values": {"C2": "C"}}, [0x4332], "C"),
        ("hex", {}, [0x00AF, 0x1234], "00af1234"),
        ("bcd", {}, [0x1234, 0x0007], "12340007"),
        ("ver", {}, [0x030A, 0x1B00], "3.10.27"),
        ("ver", {}, [0x0100, 0x0000], "1.0"),
    ],
)
def test_what_words_say(kind: str, more: dict[str, Any], words: list[int], value: object) -> None:
    assert decode(cell(kind, **more), words) == value


@pytest.mark.parametrize(
    ("kind", "more", "value", "scale", "words"),
    [
        ("u16", {}, 6.0, 0.1, (60,)),
        ("u16", {}, 19.9, 0.1, (199,)),
        ("u16", {}, 19.99, 0.1, (199,)),
        ("u16", {}, 16.0, 0.001, (16000,)),
        ("u16", {}, 11040.0, 100.0, (110,)),
        ("i16", {}, -1.0, 1.0, (0xFFFF,)),
        ("u32", {"word_order": "le"}, 70000.0, 1.0, (0x1170, 0x0001)),
        ("f32", {}, 16.0, 1.0, (0x4180, 0x0000)),
        ("f32", {"word_order": "le"}, 16.0, 1.0, (0x0000, 0x4180)),
        ("bool", {}, 1.0, 1.0, (1,)),
    ],
)
def test_what_is_written(kind: str, more: dict[str, Any], value: float, scale: float, words: tuple[int, ...]) -> None:
    assert encode(cell(kind, **more), value, scale) == words


@pytest.mark.parametrize(
    ("kind", "value"), [("u16", -1.0), ("u16", 65536.0), ("i16", 32768.0), ("str", 1.0), ("u16", math.inf)]
)
def test_what_cannot_be_written_is_refused(kind: str, value: float) -> None:
    with pytest.raises(ValueError, match="x "):
        encode(cell(kind), value, 1.0)


@given(st.sampled_from(["u16", "i16", "u32", "i32", "f64"]), st.sampled_from(["be", "le"]), st.integers(0, 30000))
def test_what_is_written_reads_back(kind: str, order: str, tenths: int) -> None:
    there = encode(cell(kind, word_order=order), tenths / 10, 0.1)
    back = decode(cell(kind, word_order=order), there)
    assert isinstance(back, float)
    assert back == pytest.approx(tenths)
