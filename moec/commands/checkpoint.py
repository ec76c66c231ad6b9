"""`moec checkpoint` and `moec export`."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.outputs import WEIGHTS, check_output
from moec.commands.tell import say
from moec.dsl.diagnostics import plan_error
from moec.dsl.plain_file import plain_file

if TYPE_CHECKING:
    from moec.checkpoint.manifest import Manifest


def checkpoint_command(options: argparse.Namespace, _: float) -> int:
    """`moec checkpoint show` and `verify`: what checkpoints a folder holds, and whether they are what was written."""
    folders = _folders(_named(options.folder))
    return _verify(folders, options.json) if options.action == "verify" else _show(folders, options.json)


def export_command(options: argparse.Namespace, _: float) -> int:
    """`moec export`: the weights of a checkpoint as the module's own."""
    from moec.checkpoint.damage import Damage
    from moec.checkpoint.folders import chosen
    from moec.runtime.checkpoint.dtypes import DTYPES
    from moec.runtime.checkpoint.export import export, left_out
    from moec.runtime.checkpoint.read import Checkpoint

    output = Path(options.output)
    check_output(output, WEIGHTS)
    try:
        with Checkpoint.open(chosen(_named(options.folder))) as checkpoint:
            dtype = DTYPES[options.dtype.upper()] if options.dtype else None
            written = export(checkpoint, plain_file(output), dtype, int(options.most * 1e9))
            unread = left_out(checkpoint)
    except Damage as damage:
        raise plan_error("E508", str(damage), f"look at all of it: moec checkpoint verify {options.folder}") from None
    except OSError as fault:
        raise plan_error(
            "E507", f"{output} cannot be written: {fault.strerror}", "name a file in a folder that can be written"
        ) from None
    say(*[f"{path}  {_bytes(path.stat().st_size)}" for path in written])
    if unread:
        say(f"left out, since the model saves them and no program reads them: {', '.join(unread)}")
    return 0


def _named(folder: str) -> Path:
    if not folder:
        raise plan_error("E508", "the name of the folder is empty", "name that of --save, or one of a step")
    return Path(folder)


def _folders(folder: Path) -> list[Path]:
    """That of a step, or all of a run."""
    from moec.checkpoint.damage import Damage
    from moec.checkpoint.folders import real_step, steps_below

    try:
        if not folder.is_dir():
            raise plan_error("E508", f"`{folder}` is no folder of checkpoints", "name that of --save, or one of a step")
        if real_step(folder)[0] >= 0:
            return [folder]
        found = steps_below(folder)
    except Damage as damage:
        raise plan_error("E508", str(damage)) from None
    except OSError as fault:
        raise plan_error("E508", f"`{folder}` cannot be read: {fault.strerror}") from None
    if not found:
        raise plan_error("E508", f"`{folder}` holds no checkpoint", "a run leaves them in the folder of --save")
    return found


def _verify(folders: list[Path], as_json: bool) -> int:
    from moec.checkpoint.verify import faults_of, notes_on

    faults = {folder: list(faults_of(folder)) for folder in folders}
    notes = {folder: notes_on(folder) for folder in folders}
    if as_json:
        record, noted = [{str(folder): found for folder, found in each.items()} for each in (faults, notes)]
        say(json.dumps({"whole": not any(faults.values()), "faults": record, "notes": noted}))
    else:
        for folder, found in faults.items():
            say(f"{folder}: {'DAMAGED' if found else 'whole, and every check sum is right'}")
            say(*[f"  {line}" for line in (*found, *notes[folder])])
    return 1 if any(faults.values()) else 0


def _show(folders: list[Path], as_json: bool) -> int:
    from moec.checkpoint.damage import Damage
    from moec.checkpoint.folders import is_whole
    from moec.checkpoint.parse_manifest import read_manifest

    found = {}
    for folder in folders:
        try:
            found[folder] = read_manifest(folder) if is_whole(folder) else None
        except Damage as damage:
            raise plan_error("E508", str(damage)) from None
    if as_json:
        say(json.dumps({str(folder): _record(manifest) for folder, manifest in found.items()}))
        return 0
    for folder, manifest in found.items():
        say(f"{folder}: {_said(manifest) if manifest else 'not whole: a save was cut off, and is passed over'}")
    if len(found) == 1:
        manifest = found[folders[0]]
        say(*(_tensors(manifest) if manifest else []))
    return 0


def _record(manifest: "Manifest | None") -> object:
    if manifest is None:
        return None
    tensors = {
        key: {"dtype": entry.dtype, "shape": entry.shape, "slices": len(entry.slices)}
        for key, entry in manifest.tensors.items()
    }
    progress = manifest.progress
    record = {"step": progress.step, "next_sample": progress.cursor, "updates": progress.updates, "seed": progress.seed}
    files = {name: file.bytes for name, file in manifest.files.items()}
    versions = dict(manifest.versions)
    return {**record, "data": progress.data, "versions": versions, "files": files, "tensors": tensors}


def _said(manifest: "Manifest") -> str:
    from moec.checkpoint.plain_json import printable

    progress, plan = manifest.progress, manifest.plan
    size = _bytes(sum(file.bytes for file in manifest.files.values()))
    files = f"{len(manifest.files)} file{'s' if len(manifest.files) != 1 else ''}"
    lines = [
        f"step {progress.step}, {size} in {files}",
        f"written by {plan.get('world_size')} ranks of {plan.get('name')}, mesh {_mesh(plan)}",
        f"next sample {progress.cursor:,}, seed {progress.seed}, data: {progress.data}",
        ", ".join([f"{name} {version}" for name, version in manifest.versions.items()]),
    ]
    return "\n  ".join([printable(line) for line in lines])


def _mesh(plan: Mapping[str, object]) -> str:
    mesh = plan.get("mesh")
    axes = mesh.items() if isinstance(mesh, dict) else ()
    return "  ".join([f"{name} {axis.get('size')}" for name, axis in axes if isinstance(axis, dict)]) or "of one rank"


def _tensors(manifest: "Manifest") -> list[str]:
    """A line for each, under one another."""
    width = max((len(key) for key in manifest.tensors), default=0)
    return [
        f"  {key:{width}}  {entry.dtype:5} {list(entry.shape)!s:20} in {len(entry.slices)}"
        for key, entry in manifest.tensors.items()
    ]


def _bytes(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
