"""Faults that people and disks put into a text: each takes a text and gives a broken one."""

import random
import re
from collections.abc import Callable

_PIECE = re.compile(r'#[^\n]*|"[^"\n]*"|\s+|\d[\w.]*|\w+|.')

VALUES = """
    0 -1 1 2 3 7 2.5 010 1e400 1e-400 nan inf NaN -0 1_000 1__0 _1 0x10 1e 1e+ 1. .5 ٣ ² 9223372036854775808
    2147483647 2147483648 262144 1000000007 true True none None null yes "text" "" python tp dp ep batch whole over let
    64GiB 64Gib 64MiB/s 3ms 20% % 5tokens/s TFLOP/s 1/0 2*2 2**3 (2) ((3)) -(-2) 1+ 4over
""".split()
"""Numbers, words and units, right and wrong."""

PIECES = [*"{}[]()=<>,;:\"'#%+-*/\\@&|!?$^~`.", "<=", ">=", "==", "->", "**", "//", "{{", "}}", "\n", "\t", "\r"]
PIECES += "model mesh shard schedule train experts require hardware communicate small inputs weights data".split()
PIECES += "let over whole python layers hidden heads batch vocab 1f1b gpipe float int".split()

LOOK_ALIKES = dict(zip('aeopcxyi-=/" ', "аеорсхуі−＝∕”\u00a0", strict=True))
LETTERS = "аéß漢🙂\u0301\u200b\u202e\u2028\ufeff\x00\x07\x0b\x0c\x1b\x85\x7f"

BYTES = (b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\r\n", b"\r", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80")


def _place(draw: random.Random, pieces: list[str], wanted: str) -> int:
    """One piece that begins as wanted, if one is soon found; else any."""
    at = 0
    for _ in range(50):
        at = draw.randrange(len(pieces))
        if re.match(wanted, pieces[at]):
            break
    return at


def _at(wanted: str, change: Callable[[random.Random, list[str], int], None]) -> Callable[[random.Random, str], str]:
    """A fault of one piece of the text."""

    def fault(draw: random.Random, text: str) -> str:
        pieces = _PIECE.findall(text) or [""]
        change(draw, pieces, _place(draw, pieces, wanted))
        return "".join(pieces)

    return fault


def _delete(_: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] = ""


def _double(draw: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] += draw.choice(("", " ")) + pieces[at]


def _swap(draw: random.Random, pieces: list[str], at: int) -> None:
    other = draw.randrange(len(pieces))
    pieces[at], pieces[other] = pieces[other], pieces[at]


def _copy(draw: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] = draw.choice(pieces)


def _value(draw: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] = draw.choice(VALUES)


def _near(draw: random.Random, pieces: list[str], at: int) -> None:
    """Another number of the same size, which mostly reads well and then fits nothing."""
    number = int(pieces[at]) if re.fullmatch(r"[0-9]{1,20}", pieces[at]) else 2
    pieces[at] = str(draw.choice((number + 1, number - 1, number * 2, number // 2, number * 3, -number)))


def _insert(draw: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] += f"{draw.choice(('', ' '))}{draw.choice((*PIECES, *VALUES))}{draw.choice(('', ' '))}"


def _misspell(draw: random.Random, pieces: list[str], at: int) -> None:
    word = list(pieces[at]) or ["x"]
    letter = draw.randrange(len(word))
    word[letter] = draw.choice(("", word[letter] * 2, draw.choice("abcxyz_019"), word[letter].swapcase()))
    pieces[at] = "".join(word)


def _look_alike(draw: random.Random, pieces: list[str], at: int) -> None:
    found = [n for n, letter in enumerate(pieces[at]) if letter in LOOK_ALIKES]
    if found:
        letter = draw.choice(found)
        pieces[at] = f"{pieces[at][:letter]}{LOOK_ALIKES[pieces[at][letter]]}{pieces[at][letter + 1 :]}"


def _nest(draw: random.Random, pieces: list[str], at: int) -> None:
    opening, closing = draw.choice(("()", "{}", "[]"))
    depth = draw.choice((1, 2, 31, 33, 5000))
    pieces[at] = opening * depth + pieces[at] + closing * draw.choice((depth, depth, depth - 1))


def _long(draw: random.Random, pieces: list[str], at: int) -> None:
    pieces[at] = draw.choice((" ", "+1", "x", "9", "#", "-", "*2", "tp, ")) * draw.choice((100, 3_000, 20_000, 70_000))


def _block(draw: random.Random, text: str) -> str:
    """A block is missing, there twice, or inside another."""
    blocks = list(re.finditer(r"\b\w{1,20}\b[^{}\n]{0,60}\{(?:[^{}]|\{[^{}]{0,999}\}){0,999}\}", text))
    if not blocks:
        return text
    block = draw.choice(blocks)
    where = draw.choice((block.start(), block.end() - 1, len(text)))
    kept = text if draw.randrange(2) else text[: block.start()] + text[block.end() :]
    return kept if draw.randrange(2) else f"{text[:where]} {block.group()} {text[where:]}"


def _items(draw: random.Random, text: str) -> str:
    """An item of some block is missing, there twice, or in another block."""
    items = re.findall(r"\b\w{1,20} {0,9}(?:[=<>] {0,9}[^\s{}]{1,20}|over {1,9}\w{1,20})", text)
    if not items:
        return text
    item = draw.choice(items)
    if draw.randrange(2):
        return text.replace(item, "", 1)
    places = [match.end() for match in re.finditer(r"\{", text)] or [0]
    where = draw.choice(places)
    return f"{text[:where]} {item} {text[where:]}"


def _cut(draw: random.Random, text: str) -> str:
    return text[: draw.randrange(len(text) + 1)]


def _letter(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    letter = draw.choice((*LETTERS, *PIECES, chr(draw.randrange(1, 128)), chr(draw.randrange(128, 0xD800))))
    return text[:at] + letter + text[at + draw.randrange(2) :]


TEXT_FAULTS: tuple[Callable[[random.Random, str], str], ...] = (
    *(_at(r"\S", change) for change in (_delete, _double, _swap, _copy, _insert, _nest)),
    *(_at(r"\d", change) for change in (_value, _value, _value, *[_near] * 6, _delete)),
    *(_at(r"[a-z]", change) for change in (_misspell, _misspell, _look_alike, _value, _copy, _swap)),
    *(_at(r"[{}\[\]()=,<>]", change) for change in (_delete, _double, _swap, _copy)),
    _at(r"\s", _long),
    *(_block, _block, _items, _items, _cut, _letter),
)

VALUE_FAULTS: tuple[Callable[[random.Random, str], str], ...] = (
    *[_at(r"\d", _near)] * 6,
    *(_at(r"\d", change) for change in (_value, _value, _copy, _swap)),
    *(_at(r"[a-z]", change) for change in (_copy, _swap)),
    *(_items, _items, _block),
)
"""Those that leave a plan readable more often than others."""


def _flip(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(max(1, len(data)))
    return data[:at] + bytes([draw.randrange(256)]) + data[at + 1 :]


def _bytes_in(draw: random.Random, data: bytes) -> bytes:
    at = draw.choice((0, draw.randrange(len(data) + 1)))
    return data[:at] + draw.choice(BYTES) + data[at:]


def _line_ends(_: random.Random, data: bytes) -> bytes:
    return b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n")


def _noise(draw: random.Random, _: bytes) -> bytes:
    return draw.randbytes(draw.choice((1, 10, 400, 4000, 70_000)))


def _wide(_: random.Random, data: bytes) -> bytes:
    return data.decode("utf-8", "replace").encode("utf-16")


BYTE_FAULTS: tuple[Callable[[random.Random, bytes], bytes], ...] = (_flip, _flip, _bytes_in, _line_ends, _noise, _wide)
