"""A metric of your own, which gate, report, registry and pull request then know."""

from pathlib import Path

import numpy as np
import pandas as pd
from sm_mlops.tabular.metrics import lower_is_better

LOST_IN_DEFAULT = 0.6  # of the amount
EARNED_IF_REPAID = 0.1  # of the amount


@lower_is_better
def cost(truth: np.ndarray, predicted: pd.DataFrame, rows: pd.DataFrame) -> float:
    """Return what wrong decisions cost per application, in USD."""
    defaults, rejected = truth == "default", predicted["prediction"] == "default"
    granted_in_vain = LOST_IN_DEFAULT * rows["amount"] * (defaults & ~rejected)
    rejected_in_vain = EARNED_IF_REPAID * rows["amount"] * (~defaults & rejected)
    return float((granted_in_vain + rejected_in_vain).mean())


if __name__ == "__main__":
    from sm_mlops.tabular import evaluate
    from sm_mlops.tabular.failure import run

    run(evaluate.main, Path(__file__).parent)
