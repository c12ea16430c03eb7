"""What was found, for people: ladders, tables, pages. Pure text from values."""
