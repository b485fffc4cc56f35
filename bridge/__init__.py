"""SMGW Bridge: from the smart meter gateway to the charging stations behind it."""

__version__ = "0.1.0"
