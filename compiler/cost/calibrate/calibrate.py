"""From an order to the entry of the hardware table: measure, fit, write."""

from moec.compiler.cost.calibrate.entry import entry_text
from moec.compiler.cost.calibrate.fit_machine import fit_machine
from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.processes import measure


def calibrate(name: str, order: Order) -> str:
    """The text of the entry `name`. Raises Failed if a process ends without a result."""
    measured = measure(order)
    return entry_text(name, order, fit_machine(order, measured), measured.share)
