"""The storage edge: what must survive a power cut."""
