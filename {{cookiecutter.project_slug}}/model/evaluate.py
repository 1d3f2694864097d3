"""Metrics of your own, which gate, report, registry and pull request then know.

A function here under @higher_is_better or @lower_is_better is a metric; `gate.metric` of mlops.yaml
may be its name:

    from sm_mlops.tabular.metrics import lower_is_better

    @lower_is_better
    def cost(truth, predicted, rows): ...

In:   truth, (rows,) labels or quantities as in the data; predicted, a DataFrame of what a client
      gets: prediction, and for classes probability and probability_<class>; rows, a DataFrame of
      the raw test rows as they came.
Out:  a number. The champion's is computed on the same rows.

By itself: python model/evaluate.py, after preprocess.py and train.py, which it runs first.
"""

from pathlib import Path

if __name__ == "__main__":
    from sm_mlops.tabular import evaluate
    from sm_mlops.tabular.failure import run

    run(evaluate.main, Path(__file__).parent)
