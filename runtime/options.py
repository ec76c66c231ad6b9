"""The command line of an emitted main.py."""

import argparse

import torch

from moec.runtime.job import Job


def parse_options(job: Job, arguments: list[str] | None) -> argparse.Namespace:
    """The options of one run of a job; ends the process where they are none."""
    parser = argparse.ArgumentParser(description=f"Train {job.name} on {job.world_size} processes, under torchrun.")
    parser.add_argument("--steps", type=int, default=100, help="the step at which the run ends (%(default)s)")
    parser.add_argument("--seed", type=int, default=job.training.seed, help="of weights and data (%(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--timeout", type=float, default=300.0, help="seconds that a rank waits for others (%(default)s)"
    )
    _add_data(parser.add_argument_group("data"))
    _add_metrics(parser.add_argument_group("metrics"))
    return parser.parse_args(arguments)


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--data", metavar="PATH", help="a text file or a folder; by default Python's own library")


def _add_metrics(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--log", metavar="FILE", help="metrics as JSON lines")
