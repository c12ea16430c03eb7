"""What to do about a topology: a Plan, operations in order."""
