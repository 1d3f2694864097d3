"""Columns of your own: what is known of a day in advance."""

from pathlib import Path

from sm_mlops.tabular.rows import Frame


def features(rows: Frame) -> Frame:
    """Return the columns to train on and to predict from."""
    rows["weekend"] = rows["day"].dt.dayofweek >= 5
    rows["month"] = rows["day"].dt.month
    # No later day is among the training rows, so the day itself says nothing about it.
    return rows.drop(columns=["day"])


if __name__ == "__main__":
    from sm_mlops.tabular import preprocess
    from sm_mlops.tabular.failure import run

    run(preprocess.main, Path(__file__).parent)
