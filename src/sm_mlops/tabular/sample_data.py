"""Write the default data, which scikit-learn contains: measurements of 569 breast tumors.

Only for the first use of a fresh repo; no step imports it.
Source: W. Wolberg and others, Breast Cancer Wisconsin (Diagnostic), UCI, 1995, CC BY 4.0.
"""

import csv
import sys
from pathlib import Path


def write(path: Path) -> None:
    """Write the rows as CSV, with the diagnosis (malignant or benign) in the last column."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    header = [name.replace(" ", "_") for name in data.feature_names] + ["diagnosis"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        for values, label in zip(data.data.tolist(), data.target.tolist(), strict=True):
            writer.writerow([*values, str(data.target_names[label])])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
