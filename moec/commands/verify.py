"""`moec verify`."""

import argparse
import json
import math
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from moec.commands.outputs import CERTIFICATE, check_output, write_output
from moec.commands.progress import working
from moec.commands.replace_file import replace_file
from moec.commands.steps import MOST_PROCESSES, checked_record, compiled, default_folder, read
from moec.commands.tell import say
from moec.dsl.diagnostics import plan_error

if TYPE_CHECKING:
    from moec.compiler.verify import Verdict


def verify_command(options: argparse.Namespace, _: float) -> int:
    """`moec verify`: prove the programs equal to the unsharded model."""
    plan = read(options)
    build = Path(options.build) if options.build is not None else None
    if build is not None and not (build / "main.py").is_file():
        headline = f"`{build}` holds no rank programs"
        help = f"write them: moec compile {options.plan} -o {build}"
        raise plan_error("E504", headline, help)
    if options.torchrun and plan.mesh.world_size > MOST_PROCESSES:
        headline = f"the plan has {plan.mesh.world_size} ranks, and --torchrun starts {MOST_PROCESSES} here at most"
        raise plan_error("E116", headline, "shrink the mesh: --set mesh.AXIS=1", "or leave --torchrun out")
    from moec.compiler.verify import statement, verify

    output = default_folder(plan)
    if options.certificate is not None:
        check_output(Path(options.certificate), CERTIFICATE)
    program = compiled(plan)
    with (
        redirect_stdout(sys.stderr),
        working(f"running the programs of {program.world_size} ranks, and the unsharded model"),
    ):
        verdict = verify(plan, program, build, output, options.exact_shape, options.torchrun)
    certificate = _certify(verdict, build or output, options.certificate)
    if options.json:
        say(json.dumps(_verdict_record(verdict) | {"certificate": str(certificate) if certificate else None}))
    else:
        written = [f"written to {certificate}"] if certificate else []
        say(*statement(verdict), *verdict.faults, *written)
    return 0 if verdict.equal else 1


def _certify(verdict: "Verdict", folder: Path, elsewhere: str | None) -> Path | None:
    """Write down what was proved, beside the programs if they are there; where, or None."""
    from moec.compiler.verify.certificate import is_of, verified_certificate
    from moec.runtime import certificate

    if verdict.checked is None or (elsewhere is None and not is_of(folder, verdict.files)):
        return None
    text = verified_certificate(verdict, folder)
    if elsewhere is not None:
        write_output(Path(elsewhere), CERTIFICATE, text)
        return Path(elsewhere)
    path = folder / certificate.CERTIFICATE
    try:
        replace_file(path, text.encode())
    except OSError as fault:
        raise plan_error(
            "E502", f"`{path}` cannot be written: {fault.strerror}", "write it elsewhere: --certificate FILE"
        ) from None
    return path


def _verdict_record(verdict: "Verdict") -> dict[str, object]:
    errors = {name: error if math.isfinite(error) else None for name, error in verdict.errors.items()}
    runs = [run.comparison.decisions.choices for run in verdict.tested]
    return {
        "ranks": verdict.program.world_size,
        "equal": verdict.equal,
        "max_error": errors,
        "choices_of_experts": runs,
        "seconds": round(verdict.seconds, 3),
        "shrunk": verdict.shrunk,
        "processes": [run.processes for run in verdict.tested],
        "faults": verdict.faults,
        "checked": checked_record(verdict.checked) if verdict.checked is not None else None,
    }
