"""Measures the machine that it runs on, and writes it down as an entry of the hardware table."""

from moec.compiler.cost.calibrate.calibrate import calibrate
from moec.compiler.cost.calibrate.order import Order
from moec.compiler.cost.calibrate.processes import Failed
from moec.compiler.cost.calibrate.processor import cores

__all__ = ["Failed", "Order", "calibrate", "cores"]
