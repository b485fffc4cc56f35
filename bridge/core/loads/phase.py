"""The noun of switching between one and three phases: what must be remembered of a wallbox.

What follows is in :mod:`bridge.core.loads.phases`, who is switched and when in :mod:`bridge.core.switching`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phases:
    """To how many lines a wallbox that can switch connects its car, and whether that is being changed.

    ``confirmed`` was told by the box (None: not known). ``wanted`` is another number while it is being switched, for
    this ``reason``: first the car is paused; once ``revision`` is set, the command is out, since that snapshot.
    ``since``: another number would be better since then, or the pause before the command was asked for then.
    ``failed``: the box did not follow.
    """

    confirmed: int | None = None
    wanted: int | None = None
    reason: str = ""
    revision: int | None = None
    since: float | None = None
    switched_mono: float = float("-inf")
    """When the last command was given."""
    failed: bool = False

    @property
    def changing(self) -> bool:
        """Whether it is being switched."""
        return self.revision is not None or self.wanted != self.confirmed
