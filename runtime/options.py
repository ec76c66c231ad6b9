"""The command line of an emitted main.py."""

import argparse
import os
from typing import NoReturn

import torch

from moec.checkpoint.manifest import LAST_SEED
from moec.runtime.ending import stop_together
from moec.runtime.job import Job

_LONGEST = 1e9  # seconds, some 30 years


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Once a machine, since all ranks have the same command line."""
        stop_together(f"main.py: {message}: main.py --help lists what there is")
        raise AssertionError("the process has ended")


def parse_options(job: Job, arguments: list[str] | None) -> argparse.Namespace:
    """The options of one run of a job; ends the process where they are none."""
    parser = _Parser(description=f"Train {job.name} on {job.world_size} processes, under torchrun.")
    steps = job.training.rate.steps or 100
    parser.add_argument("--steps", type=_whole, default=steps, help="the step at which the run ends (%(default)s)")
    parser.add_argument(
        "--seed", type=_seed, help=f"of weights and data ({job.training.seed}, or that of the run that is resumed)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--deterministic", action="store_true", help="the same bits every time, on the same mesh and machine; slower"
    )
    _add_faults(parser.add_argument_group("faults"))
    _add_checkpoints(parser.add_argument_group("checkpoints"))
    _add_data(parser.add_argument_group("data"))
    _add_metrics(parser.add_argument_group("metrics"))
    options = parser.parse_args(arguments)
    if options.save is None and (options.every or options.keep):
        parser.error("--every and --keep are of --save, which is not there")
    if not options.held_out and (options.eval_every or options.eval_samples):
        parser.error("--eval-every and --eval-samples are of --held-out, which is not there")
    if options.device == "cuda" and (missing := _missing_cuda()):
        parser.error(f"--device cuda: {missing}: --device cpu runs without")
    return options


def _missing_cuda() -> str:
    """What keeps the processes of this machine from having a GPU each."""
    if not torch.cuda.is_available():
        return "torch finds no GPU here that it can use"
    wanted, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    return f"{wanted} processes of this machine take a GPU each, and torch finds {found}" if wanted > found else ""


def _whole(text: str) -> int:
    """A whole number from 0."""
    if not _is_number(text):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _name(text: str) -> str:
    """Of a file or folder: an empty one is most often a variable of a shell that was never set."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty, and names nothing")
    return text


def _seed(text: str) -> int:
    """As a plan's: what a checkpoint can hold."""
    if not _is_number(text) or int(text) > LAST_SEED:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 0 to {LAST_SEED}")
    return int(text)


def _seconds(text: str) -> float:
    """Of a time that has an end."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is no number of seconds above 0")
    return seconds


def _count(text: str) -> int:
    """A whole number from 1."""
    if not _is_number(text) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1")
    return int(text)


def _add_faults(group: argparse._ArgumentGroup) -> None:
    help = "seconds that a rank waits for others before the job ends (%(default)s)"
    group.add_argument("--timeout", type=_seconds, default=300.0, help=help)
    help = "compare weights that several ranks have every N steps, and end where they differ"
    group.add_argument("--check-copies", type=_count, metavar="N", help=help)


def _add_checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--save", type=_name, metavar="DIR", help="where checkpoints go, a folder for each; the last step has one"
    )
    group.add_argument("--every", type=_count, metavar="N", help="save every N steps too")
    group.add_argument("--keep", type=_count, metavar="K", help="leave the last K, and remove earlier ones (all stay)")
    group.add_argument(
        "--resume", type=_name, metavar="DIR", help="go on from the latest checkpoint there, or from that of one step"
    )


def _add_data(group: argparse._ArgumentGroup) -> None:
    help = "a file or folder of text, or of token ids (.u16, .u32, .bin); by default Python's own library"
    group.add_argument("--data", type=_name, metavar="PATH", help=help)
    group.add_argument("--separator", type=int, metavar="ID", help="the token that ends a document")
    group.add_argument("--padding", type=int, metavar="ID", help="the token that is filler, and no label")
    help = "whether documents share sequences, or each begins one of its own (%(default)s)"
    group.add_argument("--documents", choices=("joined", "apart"), default="joined", help=help)
    help = "the last part of the data, as 0.01, that is not trained on; its loss is told now and then"
    group.add_argument("--held-out", type=float, default=0.0, metavar="SHARE", help=help)
    help = "steps between two evaluations, and one at the end (100)"
    group.add_argument("--eval-every", type=_count, metavar="N", help=help)
    help = "held-out samples that an evaluation reads, in whole batches (10 batches)"
    group.add_argument("--eval-samples", type=_count, metavar="N", help=help)


def _add_metrics(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--log", type=_name, metavar="FILE", help="metrics as JSON lines, which `moec plot` draws")
    group.add_argument(
        "--tensorboard", type=_name, metavar="DIR", help="metrics for TensorBoard, where it is installed"
    )
    group.add_argument(
        "--experts-every", type=_count, default=1, metavar="N", help="what experts got is recorded every N steps (1)"
    )
