"""Columns of your own, before anything is fitted.

In:   rows, a pandas DataFrame of raw rows without the target and the dropped columns, in the order
      of the file. Types never depend on what the rows hold: numbers are float64 (missing: NaN),
      true and false are boolean (NA), dates datetime64 in UTC (NaT), all other text object (None).
Out:  a DataFrame with as many rows in the same order, and any columns: numbers, booleans, dates or
      text, each of the same type for every row. The index is ignored. For example:

    rows["income_per_head"] = rows["income"] / rows["household"]

Runs for training and for each request, on some of the rows at a time: compute a row from that row
alone. What has to be learned from the training rows belongs in `fit` of train.py. While it only
returns its rows, it is not called and costs nothing.
By itself: python model/preprocess.py, on data.sample of mlops.yaml or else data.path.
"""

from pathlib import Path

from sm_mlops.tabular.rows import Frame


def features(rows: Frame) -> Frame:
    """Return the columns to train on and to predict from."""
    return rows


if __name__ == "__main__":
    from sm_mlops.tabular import preprocess
    from sm_mlops.tabular.failure import run

    run(preprocess.main, Path(__file__).parent)
