"""Contacts at the pins of the machine the bridge runs on, by libgpiod."""
