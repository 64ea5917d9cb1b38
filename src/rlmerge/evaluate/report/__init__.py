"""Shows an evaluation: as text, as one self-contained HTML page, and as files for the Hub."""
