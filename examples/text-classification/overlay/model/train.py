"""The model: logistic regression on the words of a message (TF-IDF) and on its channel."""

from pathlib import Path
from typing import Any

import joblib
import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sm_mlops.tabular.rows import Frame, Rows


def texts(rows: Rows) -> Frame:
    """Return the columns of text, empty where a value is missing."""
    return rows.frame[["message", "channel"]].fillna("")


def fit(train: Rows, validation: Rows, parameters: dict[str, Any]) -> Pipeline:
    """Return encoding and classifier, as one scikit-learn pipeline."""
    words = TfidfVectorizer(
        ngram_range=(1, 2), min_df=parameters["fewest_tickets"], sublinear_tf=True
    )
    columns = ColumnTransformer(
        [
            ("words", words, "message"),  # a name: the vectorizer takes one column of texts
            ("channel", OneHotEncoder(handle_unknown="ignore"), ["channel"]),
        ]
    )
    model = make_pipeline(columns, LogisticRegression(C=parameters["strength"], max_iter=1000))
    return model.fit(texts(train), train.labels)


def predict(model: Pipeline, rows: Rows) -> np.ndarray[Any, Any]:
    """Return a probability per row and class."""
    return model.predict_proba(texts(rows))


def save(model: Pipeline, folder: Path) -> None:
    """Write the scikit-learn pipeline."""
    joblib.dump(model, folder / "pipeline.joblib")


def load(folder: Path) -> Pipeline:
    """Return the scikit-learn pipeline."""
    return joblib.load(folder / "pipeline.joblib")


if __name__ == "__main__":
    from sm_mlops.tabular import train
    from sm_mlops.tabular.failure import run

    run(train.main, Path(__file__).parent)
