"""Registers to values and back. Pure: words in, a number or text out, and the reverse.

Words are 16-bit whole numbers in the order they have on the wire; bytes inside a word are always big endian.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence

from bridge.core.events import Reading
from bridge.modbus.cells import Cell

_FLOATS = {"f32": ">f", "f64": ">d"}
_BITS = {"u16": 16, "i16": 16, "u32": 32, "i32": 32, "u64": 64, "i64": 64}
_RANGES: Mapping[str, tuple[int, int]] = {
    kind: (0, 2**bits - 1) if kind[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for kind, bits in _BITS.items()
}


def decode(cell: Cell, words: Sequence[int]) -> Reading | None:
    """What the words of one cell say, before scaling; None when they say that there is no value.

    Words named in ``cell.values`` are replaced by their meaning, which is not to be scaled.
    """
    if cell.type in _FLOATS or cell.type in _BITS:
        value = _number(cell, words)
    elif cell.type == "bool":
        value = float(words[0] != 0)
    else:
        text = _TEXTS[cell.type](struct.pack(f">{len(words)}H", *words))
        return cell.values.get(text, cell.default) if cell.values else text
    if value is None or not cell.values:
        return value
    return cell.values.get(f"{value:.0f}", cell.default)


def encode(cell: Cell, value: float, scale: float) -> tuple[int, ...]:
    """The words that make a cell hold ``value``; a register of whole numbers never holds more of it than that.

    Raises ``ValueError`` when the cell cannot hold the value.
    """
    raw = (value - cell.offset) / scale
    if not math.isfinite(raw):
        raise ValueError(f"{cell.name} cannot hold {value:g}")
    if cell.type == "bool":
        return (int(raw != 0),)
    if cell.type in _FLOATS:
        data = struct.pack(_FLOATS[cell.type], raw)
    elif cell.type in _BITS:
        whole = math.floor(raw + 1e-6)  # 6 A / 0.1 is 59.99…: that is 60
        low, high = _RANGES[cell.type]
        if not low <= whole <= high:
            raise ValueError(f"{cell.name} cannot hold {value:g}: {whole} is outside {low} to {high}")
        data = whole.to_bytes(_BITS[cell.type] // 8, "big", signed=low < 0)
    else:
        raise ValueError(f"{cell.name} is a text and cannot be written")
    words = struct.unpack(f">{len(data) // 2}H", data)
    return words[::-1] if cell.word_order == "le" else words


def _number(cell: Cell, words: Sequence[int]) -> float | None:
    ordered = words[::-1] if cell.word_order == "le" else words
    data = struct.pack(f">{len(ordered)}H", *ordered)
    bits = int.from_bytes(data, "big")
    if bits in cell.na or (cell.usual_na and bits in usual_na(cell.type)):
        return None
    if cell.type in _FLOATS:
        value: float = struct.unpack(_FLOATS[cell.type], data)[0]
        return value if math.isfinite(value) else None
    if cell.mask is not None:
        lowest = cell.mask & -cell.mask
        return float((bits & cell.mask) // lowest)
    return float(int.from_bytes(data, "big", signed=cell.type[0] == "i"))


def usual_na(kind: str) -> frozenset[int]:
    """Bit patterns by which devices customarily say "no value".

    All ones (ABB, SMA, SunSpec unsigned), the most negative number (SunSpec and SMA signed), and the most positive
    signed one (ABB, Huawei).
    """
    bits = _BITS.get(kind, 0)
    if not bits:
        return frozenset()
    if kind[0] == "u":
        return frozenset({2**bits - 1})
    return frozenset({2 ** (bits - 1), 2 ** (bits - 1) - 1})


def _ascii(data: bytes) -> str:
    return data.decode("latin-1").replace("\0", "").strip()


def _ascii_low_first(data: bytes) -> str:
    return _ascii(b"".join(data[i : i + 2][::-1] for i in range(0, len(data), 2)))


def _utf16(data: bytes) -> str:
    return data.decode("utf-16-be", errors="replace").replace("\0", "").strip()


def _version(data: bytes) -> str:
    """Bytes with dots between them; zeros at the end are padding beyond the second part."""
    parts = list(data)
    while len(parts) > 2 and parts[-1] == 0:
        parts.pop()
    return ".".join(map(str, parts))


_TEXTS: Mapping[str, Callable[[bytes], str]] = {
    "str": _ascii,
    "str_lsb": _ascii_low_first,
    "str_utf16": _utf16,
    "hex": lambda data: data.hex(),
    "bcd": lambda data: data.hex(),
    "ver": _version,
}
