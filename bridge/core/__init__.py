"""The pure core: what we know and what follows from it. No IO, no threads, no clock, no logging.

Start with :mod:`bridge.core.step`, the only door; the nouns are in :mod:`~bridge.core.events`,
:mod:`~bridge.core.model` and :mod:`~bridge.core.decision`.
"""
