"""Ways to damage the folder of a step, each drawn; what is hit is said."""

import random
import shutil
from pathlib import Path


def damage(folder: Path, draw: random.Random) -> tuple[str, str]:
    """Do one of them; its kind, and the name of the file that a message must have."""
    files = sorted(folder.iterdir())
    path = draw.choice(files)
    kind = draw.choice(["flip", "cut", "longer", "gone", "extra", "swap", "rename", "zeros", "link", "text"])
    content = bytearray(path.read_bytes())
    match kind:
        case "flip":
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
            path.write_bytes(content)
        case "cut":
            path.write_bytes(content[: draw.randrange(len(content))])
        case "longer":
            path.write_bytes(content + bytes(draw.randrange(1, 9)))
        case "gone":
            path.unlink()
        case "extra":
            path = folder / draw.choice(["rank_99999.safetensors", "notes.txt", "rank_00000.safetensors.part"])
            path.write_bytes(content)
        case "swap":
            other = draw.choice([file for file in files if file != path])
            other_content = other.read_bytes()
            if other_content == bytes(content):
                return damage(folder, draw)
            other.write_bytes(content)
            path.write_bytes(other_content)
            path = other if other.name == "manifest.json" else path
        case "rename":
            path = path.rename(path.with_name(f"rank_{draw.randrange(900, 999):05d}.safetensors"))
        case "zeros":
            start = draw.randrange(len(content))
            stop = min(len(content), start + draw.choice([1, 8, 64]))
            if not any(content[start:stop]):
                return damage(folder, draw)
            content[start:stop] = bytes(stop - start)
            path.write_bytes(content)
        case "link":
            away = folder.parent / f"away_{draw.randrange(10**9)}"
            shutil.move(path, away)
            path.symlink_to(away)
        case "text":
            path = folder / "manifest.json"
            text = path.read_bytes()
            digits = [i for i, c in enumerate(text) if chr(c).isdigit()]
            at = draw.choice(digits)
            path.write_bytes(
                text[:at] + str((int(chr(text[at])) + draw.randrange(1, 10)) % 10).encode() + text[at + 1 :]
            )
    return kind, path.name
