"""The HTTP edge: doors, the Flask application, the pure request functions beside it."""
