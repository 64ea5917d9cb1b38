"""What several tests share: models on disk, merges of arrays, and methods interpreted with NumPy alone."""
