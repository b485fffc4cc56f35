"""What came of it: receipts, charging sessions, and the evidence for the journal."""
