"""The report of a search: plain data in, text or a page out."""
