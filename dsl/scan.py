"""Looks at a text before it is parsed: its letters, its quotes and its brackets."""

import re
import unicodedata

from moec.dsl.report import Report
from moec.dsl.source import Place, Source, Span

MOST_COLUMNS = 10_000
MOST_NESTING = 32

_CLOSES = {")": "(", "]": "[", "}": "{"}
_OPENS = {opening: closing for closing, opening in _CLOSES.items()}
_PIECE = re.compile(
    r"""(?P<comment>\#[^\n]*)
      | (?P<string>"(?:[^"\\\n]|\\.)*")
      | (?P<quote>")
      | (?P<bracket>[()\[\]{}])
      | (?P<word>[\w\x80-\U0010ffff]+)""",
    re.VERBOSE,
)
_LOOKS_LIKE = dict(zip("аеорсухіјѕԁһԛԝαοινκτ−–—×∕“”„＝", 'aeopcyxijsdhqwaoivkt---*/"""=', strict=True)) | {
    "\u00a0": "a space"
}


def scan(source: Source, report: Report) -> None:
    """Report lines that are too long, letters that are no text or not ASCII, and unbalanced brackets and quotes."""
    _scan_lines(source, report)
    _scan_controls(source, report)
    open_brackets: list[Place] = []
    for piece in _PIECE.finditer(source.text):
        place = Place(source, Span(piece.start(), piece.end()))
        match piece.lastgroup:
            case "quote":
                help = ['write the missing `"`']
                report.error("E102", "a quote is not closed on its line", place.label("opened here"), help=help)
            case "word" if not place.text.isascii():
                _report_foreign(place, report)
            case "bracket" if place.text in _OPENS:
                open_brackets.append(place)
                if len(open_brackets) > MOST_NESTING:
                    text = f"{MOST_NESTING} brackets are open already"
                    help = ["bind what the inner ones hold with `let`"]
                    report.error("E005", "brackets are nested too deeply", place.label(text), help=help)
                    return
            case "bracket" if not _close(place, open_brackets, report):
                return
    for place in open_brackets[-1:]:
        closing = _OPENS[place.text]
        help = f"write the missing `{closing}`"
        report.error("E102", f"`{place.text}` is never closed", place.label(f"no `{closing}` follows"), help=[help])


def _close(place: Place, open_brackets: list[Place], report: Report) -> bool:
    if open_brackets and open_brackets[-1].text == _CLOSES[place.text]:
        open_brackets.pop()
        return True
    if not open_brackets:
        help = [f"take it out, or write the missing `{_CLOSES[place.text]}`"]
        report.error("E102", f"`{place.text}` closes nothing", place.label("no bracket is open here"), help=help)
        return False
    opening = open_brackets[-1]
    headline = f"`{place.text}` cannot close `{opening.text}`"
    labels = place.label(f"`{_OPENS[opening.text]}` is expected"), opening.note("opened here")
    report.error("E102", headline, *labels, help=[f"write the missing `{_OPENS[opening.text]}`"])
    return False


def _scan_lines(source: Source, report: Report) -> None:
    start = 0
    for line in source.text.split("\n"):
        if len(line) > MOST_COLUMNS:
            label = Place(source, Span(start, start + 1)).label(f"{len(line):,} letters")
            report.error("E002", "a line is too long", label, help=[f"a line has at most {MOST_COLUMNS:,} letters"])
            return
        start += len(line) + 1


def _scan_controls(source: Source, report: Report) -> None:
    found = re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", source.text)
    if found:
        label = Place(source, Span(found.start(), found.end())).label(f"U+{ord(found.group()):04X}")
        report.error("E003", "a plan holds text, and this is a control character", label, help=["remove it"])


def _report_foreign(place: Place, report: Report) -> None:
    """Outside comments and strings a plan is ASCII: a letter that only looks like one would read as another name."""
    letter = next(letter for letter in place.text if letter > "\x7f")
    name = unicodedata.name(letter, "a character without a name")
    meant = _LOOKS_LIKE.get(letter) or unicodedata.normalize("NFKC", letter)
    looks = f", which looks like `{meant}`" if len(meant) == 1 and meant.isascii() else ""
    help = "names, numbers and signs are written in ASCII; only comments and strings hold other letters"
    plain = "".join(_LOOKS_LIKE.get(other) or unicodedata.normalize("NFKC", other) for other in place.text)
    if meant == "a space":
        looks, help = "", "write an ordinary space"
    elif plain.isascii():
        help = f"write `{plain}` in ASCII"
    headline = f"`{place.text}` is not plain ASCII"
    report.error("E103", headline, place.label(f"U+{ord(letter):04X} {name}{looks}"), help=[help])
