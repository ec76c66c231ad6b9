"""Time a step of the emitted program of one rank beside the plain module under autograd, which is what it computes.

    python benchmarks/one_rank.py --hidden 256

The two take turns in one process; what is printed is as that of step.py.
"""

from emitted import Emitted, join
from plain import Plain
from step import arguments, prepare, report, sizes_of, source_of, take_turns

MESH = {"dp": 1}


def main() -> None:
    options = arguments(__doc__)
    sizes = sizes_of(options)
    prepare()
    folder, ranks = join(0, 1, MESH, sizes)
    source = source_of(sizes)
    rivals = {"moec": Emitted(folder, source), "plain": Plain()}
    for rival in rivals.values():
        rival.setup(0, 1, MESH, sizes)
    report("one rank", sizes, take_turns(rivals, source, options.steps))
    ranks.close()


if __name__ == "__main__":
    main()
