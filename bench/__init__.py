"""What the bridge costs and how quick it is, measured on the machine at hand: ``python -m bench``."""
