"""Write the default data, which scikit-learn contains: measurements of 569 breast tumors.

Only for the first use of a fresh repo; no step imports it.
Source: W. Wolberg and others, Breast Cancer Wisconsin (Diagnostic), UCI, 1995, CC BY 4.0.
"""

import csv
import os
from importlib.metadata import distribution
from pathlib import Path

_DATA = "sklearn/datasets/data/breast_cancer.csv"
_MEASURED = "radius texture perimeter area smoothness compactness concavity concave_points symmetry"
_HOW = ("mean_{}", "{}_error", "worst_{}")


def write(path: Path) -> None:
    """Write the rows as CSV, with the diagnosis (malignant or benign) in the last column."""
    # Importing scikit-learn instead would take a second.
    text = Path(str(distribution("scikit-learn").locate_file(_DATA))).read_text(encoding="utf-8")
    (_, _, *names), *rows = csv.reader(text.splitlines())
    measured = [*_MEASURED.split(), "fractal_dimension"]
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", newline="") as file:
        target = csv.writer(file, lineterminator="\n")
        target.writerow([*(how.format(each) for how in _HOW for each in measured), "diagnosis"])
        target.writerows([*map(float, row[:-1]), names[int(row[-1])]] for row in rows)
    unfinished.replace(path)
