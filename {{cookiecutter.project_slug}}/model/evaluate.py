"""Evaluate the packaged model and the champion (the newest approved version) on the test rows.

Input:  --model: model.tar.gz, or the folder it unpacks to.
        --test: a folder of raw rows with the target, as Parquet.
        --champion: a folder with champion.json ({"version": "3"}) and model.tar.gz, if it exists.
        --waive-champion: yes, to go on without the comparison if the champion cannot be scored.
Output: in the folder --output: evaluation.json, metrics in SageMaker's model quality schema;
        gate.json, each metric, the champion's, and how much worse the model is; report.html;
        sample-payload.tar.gz, some rows in every content type and the predictions for them.

You may replace this file as long as it writes these outputs. It must not know the gate's thresholds
or how the model was trained.
"""

from pathlib import Path

from sm_mlops.tabular import evaluate
from sm_mlops.tabular.failure import run

if __name__ == "__main__":
    run(evaluate.main, Path(__file__).parent)
