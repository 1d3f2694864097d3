"""Train XGBoost on the encoded rows and write everything that the endpoint needs.

Input:  channels (folders) train and validation, encoded rows as preprocess.py writes them, and
        preprocessor with schema.json. Hyperparameters as `--name value`: XGBoost's own, and
        num_boost_round, early_stopping_rounds, checkpoint_rounds. The others come from mlops.yaml,
        if it is in this folder or the one above.
Output: in the model folder: model.ubj; schema.json; training.json, parameters and learning curve;
        versions.json, the packages; code/, inference.py and the modules it imports.

You may replace this file as long as it writes these outputs. It must not see the test rows or know
how the model will be evaluated.
"""

from pathlib import Path

from sm_mlops.tabular import train
from sm_mlops.tabular.failure import run

if __name__ == "__main__":
    run(train.main, Path(__file__).parent)
