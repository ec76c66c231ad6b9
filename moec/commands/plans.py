"""`moec new`, `moec fmt` and `moec explain`: what needs no compiler."""

import argparse

from moec.commands.plan_files import format_files, write_starter
from moec.commands.tell import put, say
from moec.dsl.explain import explain, list_codes


def new_command(options: argparse.Namespace, _: float) -> int:
    """`moec new`: write a plan to start from."""
    path = write_starter(options.name, options.output)
    say(f"{path} is a small mixture of experts on 8 ranks", f"prove it: moec verify {path}")
    return 0


def fmt_command(options: argparse.Namespace, _: float) -> int:
    """`moec fmt`: write plans in their canonical form, or say which are not."""
    return format_files(options.plans, options.check)


def explain_command(options: argparse.Namespace, _: float) -> int:
    """`moec explain`: the page of a code, or all codes."""
    put(list_codes() if options.code is None else explain(options.code))
    return 0
