"""Write the default data, which scikit-learn contains: measurements of 569 breast tumors.

Only for the first use of a fresh repo; no step imports it.
Source: W. Wolberg and others, Breast Cancer Wisconsin (Diagnostic), UCI, 1995, CC BY 4.0.
"""

import sys
from pathlib import Path


def write(path: Path) -> None:
    """Write the rows as CSV, with the diagnosis (malignant or benign) in the last column."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer(as_frame=True)
    frame = data.data.rename(columns=lambda name: name.replace(" ", "_"))
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.assign(diagnosis=data.target_names[data.target]).to_csv(path, index=False)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
