"""Read the raw data, split it, fit the encoding on the training rows, and encode the rows.

Input:  --data: a CSV or Parquet file, or a folder of them. --data-hash: in a job, the DataHash that
        it must have. --measured-as: classes or quantity, what the gate's metric is for. `data`,
        `split` and `aws` of mlops.yaml, in this folder or the one above.
Output: in the folder --output: train/ and validation/, Parquet with float32 columns: the label
        (class index or quantity), then the features, NaN where missing; test/, Parquet with the raw
        rows and the target; preprocessor/schema.json, the fitted encoding.

You may replace this file as long as it writes these outputs. It must not know how the model is
trained or evaluated, or where it runs.
"""

from pathlib import Path

from sm_mlops.tabular import preprocess
from sm_mlops.tabular.failure import run

if __name__ == "__main__":
    run(preprocess.main, Path(__file__).parent)
