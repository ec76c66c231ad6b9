"""The command line: its commands and their options."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn, TypeAlias

import moec
from moec.dsl.diagnostics import PlanError, plan_error
from moec.dsl.suggest import did_you_mean, listed, nearest


def parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of one command; raises PlanError for a command line that is none."""
    own, separator, passed = _split(list(arguments))
    parser, commands = _parser()
    if own and not own[0].startswith("-") and own[0] not in commands:
        raise _fault(f"there is no command `{own[0]}`", *did_you_mean(own[0], commands, "commands"))
    options, unknown = parser.parse_known_args(own)
    if unknown:
        headline = f"unknown arguments: {' '.join(unknown)}"
        raise _fault(headline, *_meant(unknown, commands[options.command], options.command))
    if separator and options.command != "run":
        raise _fault(f"`moec {options.command}` passes nothing on", "leave `--` and what follows it out")
    options.passed = passed
    return options


def _meant(unknown: Sequence[str], parser: argparse.ArgumentParser, command: str) -> list[str]:
    """The options that misspelt ones are close to, or else where all are listed."""
    options = re.findall(r"(?<![\w-])--[a-z-]+", parser.format_help())
    words = [word.partition("=")[0] for word in unknown if word.startswith("--")]
    close = [option for word in words if (option := nearest(word, options))]
    if close:
        return [f"did you mean {listed(close)}?"]
    if command == "run":
        return ["`moec run PLAN -- ...` passes arguments on to main.py"]
    return [f"`moec {command} --help` lists what there is"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _fault(message, f"`{self.prog} --help` lists what there is")


_Commands: TypeAlias = "argparse._SubParsersAction[_Parser]"


def _fault(headline: str, *help: str) -> PlanError:
    return plan_error("E115", headline, *help)


def _split(arguments: list[str]) -> tuple[list[str], bool, list[str]]:
    """What stands before and after the first `--`."""
    if "--" not in arguments:
        return arguments, False, []
    at = arguments.index("--")
    return arguments[:at], True, arguments[at + 1 :]


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """That of the command line, and those of its commands by name."""
    parser = _Parser(prog="moec", description="Compile a plan into one readable PyTorch program for every rank.")
    parser.add_argument("--version", action="version", version=f"moec {moec.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_compile(_command(commands, "compile", "write the rank programs of a plan"))
    _add_check(_command(commands, "check", "say what is wrong with a plan, and write nothing"))
    _add_show(_command(commands, "show", "print a part of what a plan becomes"))
    _add_verify(_command(commands, "verify", "prove that the rank programs compute what the unsharded model does"))
    _add_run(_command(commands, "run", "compile a plan and start its ranks on this machine"))
    _add_estimate(_command(commands, "estimate", "predict time and memory of a plan, and hold its bounds against them"))
    _add_compare(_plain_command(commands, "compare", "estimate several plans side by side"))
    _add_report(_command(commands, "report", "draw what a plan becomes and costs, as a page"))
    _add_calibrate(_plain_command(commands, "calibrate", "measure this machine, as an entry of the hardware table"))
    _add_checkpoint(
        _plain_command(commands, "checkpoint", "show the checkpoints of a run, or verify every byte of them")
    )
    _add_export(_plain_command(commands, "export", "write the weights of a checkpoint under the module's own names"))
    _add_plot(_plain_command(commands, "plot", "draw the metrics of runs as curves on a page"))
    _add_new(_plain_command(commands, "new", "write a plan to start from"))
    _add_fmt(_plain_command(commands, "fmt", "write plans in their canonical form"))
    _add_explain(_plain_command(commands, "explain", "say what the code of a diagnostic means"))
    return parser, dict(commands.choices)


def _plain_command(commands: _Commands, name: str, help: str) -> argparse.ArgumentParser:
    return commands.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}.")


def _command(commands: _Commands, name: str, help: str) -> argparse.ArgumentParser:
    """One that reads a plan."""
    parser = _plain_command(commands, name, help)
    parser.add_argument("plan", metavar="PLAN", help="a .plan file")
    _add_set(parser)
    return parser


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="override a value of the plan, such as mesh.tp=8; may be given several times",
    )


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=_named, metavar="DIR", help="where to write (build/<name of the plan>)")


def _add_compile(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    _add_output(parser)
    _add_json(parser)


def _add_check(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    _add_json(parser)


def _add_show(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mesh", action="store_true", help="the axes, their groups and the tilings (the default)")
    what.add_argument("--rank", type=int, metavar="N", help="the program of a rank")
    what.add_argument("--stage", type=int, metavar="N", help="what the ranks of a pipeline stage share")
    what.add_argument("--weights", action="store_true", help="every weight, its shape and its placement")
    what.add_argument("--program", action="store_true", help="the instructions before they are written as Python")
    what.add_argument("--after", metavar="PASS", help="the same as it stands after a pass of the compiler")


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--build", type=_named, metavar="DIR", help="verify the files in this folder, as they are")
    parser.add_argument("--exact-shape", action="store_true", help="run the plan's own sizes, not small ones")
    parser.add_argument("--torchrun", action="store_true", help="run the ranks as processes that talk over gloo, too")
    parser.add_argument("--certificate", type=_named, metavar="FILE", help="where to write it (beside the programs)")
    _add_json(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hardware",
        action="append",
        default=[],
        type=_named,
        metavar="FILE",
        help="further entries for the hardware table, as `moec calibrate` writes them; may be given several times",
    )
    parser.add_argument(
        "--routing",
        type=_named,
        metavar="HOW",
        help="how tokens choose experts: uniform, zipf:1.2, or a file with the rows each expert got, such as a run's "
        "metrics (uniform)",
    )


def _add_estimate(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    parser.add_argument("--explain", metavar="NAME", help="the formula of a figure, what goes into it, and the number")
    parser.add_argument("--mend", action="store_true", help="search for changes that keep the bounds that are broken")
    parser.add_argument("--trace", type=_named, metavar="FILE", help="write the timeline for Perfetto")
    _add_json(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plans", metavar="PLAN", nargs="+", help="two .plan files or more")
    _add_set(parser)
    _add_machine(parser)
    _add_json(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    _add_machine(parser)
    parser.add_argument("-o", "--output", type=_named, metavar="FILE", help="where to write (report.html)")


def _add_run(parser: argparse.ArgumentParser) -> None:
    options = "[--set PATH=VALUE] [--hardware FILE] [--routing HOW] [-o DIR] [--nproc N]"
    parser.usage = f"%(prog)s [-h] {options} PLAN [-- ARGUMENTS OF main.py]"
    _add_machine(parser)
    _add_output(parser)
    parser.add_argument("--nproc", type=int, metavar="N", help="processes to start (as many as the plan has ranks)")


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=_named, metavar="FILE", help="where to write (standard output)")
    parser.add_argument("--name", default="measured", metavar="NAME", help="what plans call the entry (%(default)s)")
    parser.add_argument("--ranks", type=int, metavar="N", help="ranks that work at once (one on each core, or GPU)")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="what to measure (GPUs, if there are any)")
    parser.add_argument("--quick", action="store_true", help="in a few seconds, and more roughly")


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=("show", "verify"))
    parser.add_argument("folder", metavar="DIR", help="what main.py was given as --save, or a step's folder in it")
    _add_json(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the latest checkpoint there, or that of one step")
    parser.add_argument("-o", "--output", required=True, type=_named, metavar="FILE", help="such as model.safetensors")
    parser.add_argument("--dtype", choices=("bf16", "f16", "f32", "f64"), help="of the weights (as they were trained)")
    parser.add_argument(
        "--most", type=_positive, default=5.0, metavar="GB", help="of one file; more goes into several (%(default)s)"
    )


def _named(text: str) -> str:
    """What a file or folder can be called."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name")
    return text


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"{text} is no positive number")
    return value


def _add_plot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "metrics", metavar="FILE", nargs="+", help="what main.py wrote with --log; several are compared"
    )
    parser.add_argument(
        "-o", "--output", type=_named, metavar="FILE", help="where to write (beside the first, as .html)"
    )


def _add_new(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="what the model is called (my_model)")
    parser.add_argument(
        "-o", "--output", type=_named, metavar="FILE", help="where to write (NAME.plan); nothing is overwritten"
    )


def _add_fmt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("plans", metavar="PLAN", nargs="+", help="a .plan file, or - for standard input and output")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 and name the files that would change"
    )


def _add_explain(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("code", metavar="CODE", nargs="?", help="such as E203; all are listed without one")
