"""Proves the emitted programs of all ranks equal to the unsharded model, by running both."""

from moec.compiler.verify.statement import statement
from moec.compiler.verify.verify import Verdict, verify

__all__ = ["Verdict", "statement", "verify"]
