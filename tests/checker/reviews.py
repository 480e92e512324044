"""Two hundred reviews that one word decides, as a table, for whoever trains on a table."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from tinybert import BAD, GOOD


def write(folder: Path) -> str:
    """The path of the table: a review, a verdict, and stars around 1.5 or 4."""
    draw, path = np.random.default_rng(0), folder / "reviews.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "verdict", "stars"])
        for i in range(200):
            good = i % 2
            words = [*draw.choice(["a", "film", "so"], 3), draw.choice(GOOD if good else BAD), f"w{i}"]
            writer.writerow([" ".join(words), ["bad", "good"][good], round(1.5 + 2.5 * good + draw.normal(0, 0.1), 3)])
    return str(path)
