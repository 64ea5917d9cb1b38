"""Shows an inspection: as text, and as one self-contained HTML page."""
