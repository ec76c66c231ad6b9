"""The static proof: what the emitted programs of all ranks do, without a number.

Their text runs on terms (execute.py) that are matched between the ranks (meet.py) and compared with what the program
says (expect.py, values.py); what every gradient must be summed over is found a second time, from which ranks have
different data (vary.py); ranks, groups and slices must fit together (groups.py).
"""

from moec.compiler.check.check import Report, check
from moec.compiler.check.faults import CHECKS, Fault, to_tell

__all__ = ["CHECKS", "Fault", "Report", "check", "to_tell"]
