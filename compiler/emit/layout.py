"""Lays lines out within a width: a call that is too long is opened, its arguments on lines of their own."""

from collections.abc import Iterator, Sequence

WIDTH = 110


def fold(line: str, indent: int = 0) -> list[str]:
    """A line as several, if it is too long; a comment that does not fit goes before it."""
    if indent + len(line) <= WIDTH:
        return [line]
    code, mark, comment = _comment_of(line)
    if mark:
        return [f"# {comment}", *fold(code, indent)]
    opened = _outer_bracket(line)
    if opened is None:
        return [line]
    start, end = opened
    head, inner, tail = line[: start + 1], line[start + 1 : end], line[end:]
    if not inner.strip():
        return [line]
    if indent + 4 + len(inner) <= WIDTH:
        return [head, f"    {inner}", tail]
    lines: list[str] = []
    for part in split_top(inner):
        *before, last = fold(f"{part},", indent + 4)
        lines += [f"    {text}" for text in (*before, last)]
    return [head, *lines, tail]


def fold_all(lines: Sequence[str], indent: int = 0) -> tuple[str, ...]:
    """Every line folded, with its own indentation kept."""
    found: list[str] = []
    for line in lines:
        bare = line.lstrip()
        space = line[: len(line) - len(bare)]
        found += [f"{space}{text}" for text in fold(bare, indent + len(space))]
    return tuple(found)


def listing(name: str, items: Sequence[str]) -> tuple[str, ...]:
    """`NAME = (item, item)`: on one line if it fits, else an item a line."""
    inline = f"{name} = ({', '.join(items)}{',' if len(items) == 1 else ''})"
    if len(inline) <= WIDTH and len(items) == 1:
        return (inline,)
    inner = [f"    {line}" for item in items for line in fold(f"{item},", 4)]
    return (f"{name} = (", *inner, ")")


def paragraph(text: str, indent: int, width: int = WIDTH) -> str:
    """A docstring: every paragraph filled, continuation lines indented."""
    space = " " * indent
    filled = []
    for part in text.split("\n\n"):
        lines, line = [], ""
        for word in part.replace("  ", " \u00a0").split(" "):
            room = width - indent - (6 if not filled and not lines else 0)
            if line and len(line) + 1 + len(word) > room:
                lines.append(line.rstrip())
                line = word
            else:
                line = f"{line} {word}" if line or lines else word
        filled.append(f"\n{space}".join(text.lstrip("\u00a0") for text in [*lines, line]).replace("\u00a0", " "))
    return f"\n\n{space}".join(filled) + (f"\n{space}" if len(filled) > 1 else "")


def whole(text: str) -> str:
    """Text that a paragraph does not break."""
    return text.replace(" ", "\u00a0")


def in_docstring(text: str) -> str:
    """Text of the plan or of the model as it may stand in a docstring, and never end it or its line."""
    escaped = {"\\": "\\\\", '"': '\\"'}
    shown = (letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
    return "".join(escaped.get(letter, letter) for letter in shown)


def quoted(text: str) -> str:
    """A string as Python, in double quotes where that is as short."""
    plain = repr(text)
    return f'"{plain[1:-1]}"' if plain[0] == "'" and '"' not in plain and "\\" not in plain else plain


def split_top(text: str) -> list[str]:
    """The parts of a list of arguments, at the commas outside of brackets and strings."""
    parts, depth, start = [], 0, 0
    for place, letter in _outside_strings(text):
        if letter in "([{":
            depth += 1
        elif letter in ")]}":
            depth -= 1
        elif letter == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    parts.append(text[start:].strip())
    return [part for part in parts if part]


def _outside_strings(text: str) -> Iterator[tuple[int, str]]:
    """The letters of a line of Python that are in no string, with their places."""
    quote, escaped = "", False
    for place, letter in enumerate(text):
        if escaped:
            escaped = False
        elif quote:
            escaped = letter == "\\"
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            yield place, letter


def _comment_of(line: str) -> tuple[str, bool, str]:
    start = next((place for place, letter in _outside_strings(line) if letter == "#"), None)
    return (line, False, "") if start is None else (line[:start].rstrip(), True, line[start + 1 :].strip())


def _outer_bracket(line: str) -> tuple[int, int] | None:
    """The first bracket that the line ends with closing."""
    stack: list[int] = []
    body = line.rstrip(",:")
    for place, letter in _outside_strings(body):
        if letter in "([{":
            stack.append(place)
        elif letter in ")]}" and stack:
            start = stack.pop()
            if not stack and place == len(body) - 1:
                return start, place
    return None
