"""What a run says of each step: one line for the person, one for machines."""

import json
import os
import sys
from typing import TextIO

from moec.runtime.data import DataFault
from moec.runtime.run import Run


def open_log(path: str | None) -> TextIO:
    try:
        return open(path or os.devnull, "w", encoding="utf-8")
    except OSError as fault:
        raise DataFault(f"--log {path} cannot be written: {fault.strerror}") from None


def show(run: Run, steps: int, seconds: float, log: TextIO) -> None:
    """One line for the person, one for machines."""
    assert run.result is not None, "the program's step does not end in run.update()"
    loss, norm, tokens = run.result.loss, run.result.gradient_norm, run.job.tokens
    metrics = {"step": run.step, "loss": loss, "grad_norm": norm, "tokens": tokens, "seconds": round(seconds, 6)}
    log.write(json.dumps(metrics) + "\n")
    log.flush()
    line = f"step {run.step}/{steps}  loss {loss:.4f}  {tokens / seconds:,.0f} tokens/s"
    live = sys.stdout.isatty()
    print(f"\r{line}\033[K" if live else line, end="" if live and run.step < steps else "\n", flush=True)
