"""What the grid side ordered: how long it holds, how it is lifted, and how the house stands with the operator."""
