"""Simulated devices for `demo`, `simulate` and tests: wallboxes with cars, a house, and the meter that sees both.

The register maps here are written by hand from the makers' documents and share nothing with the device profiles,
so that a mistake in a profile shows.
"""
