"""Whole days in seconds: the real decisions of the bridge in a simulated world, judged with perfect sight."""

from bench.days.report import run

__all__ = ["run"]
