"""What flows where: other load and cars, worked out from readings; on which lines, and what has been counted."""
