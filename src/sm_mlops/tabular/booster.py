"""XGBoost without the parts that this code never uses, and the parameters that it knows.

Must not know about data, files or jobs.
"""

import ast
import math
import re
import sys
from collections.abc import Container, Iterable, Mapping
from difflib import get_close_matches
from types import ModuleType
from typing import Any

DEFAULTS: dict[str, Any] = {
    "num_boost_round": 2000,
    "early_stopping_rounds": 50,
    "eta": 0.05,
    "max_depth": 5,
    "min_child_weight": 0.3,
    "subsample": 0.6,
    "colsample_bytree": 0.6,
    "lambda": 1,
}
"""`hyperparameters` of mlops.yaml in a fresh repo, and the value of each that is absent there."""

OWN = {"num_boost_round": int, "early_stopping_rounds": int, "checkpoint_rounds": int}
"""Parameters of boosting.py itself."""
ABSENT = ("", "null", "None")
"""Texts that stand for no value."""
USED_BY = "sm_mlops/tabular/boosting.py"

# Source: https://xgboost.readthedocs.io/en/release_3.2.0/parameter.html
_INTEGERS = """
    max_depth max_leaves max_bin max_delta_step num_parallel_tree seed nthread verbosity
    max_cat_to_onehot max_cat_threshold
"""
_NUMBERS = """
    eta gamma min_child_weight subsample colsample_bytree colsample_bylevel colsample_bynode
    lambda alpha scale_pos_weight base_score rate_drop skip_drop huber_slope
    tweedie_variance_power quantile_alpha
"""
_TEXTS = """
    booster tree_method grow_policy sampling_method objective eval_metric device
    monotone_constraints interaction_constraints sample_type normalize_type one_drop
    seed_per_iteration
"""
XGBOOST: dict[str, type] = {
    **dict.fromkeys(_INTEGERS.split(), int),
    **dict.fromkeys(_NUMBERS.split(), float),
    **dict.fromkeys(_TEXTS.split(), str),
}
KNOWN: dict[str, type] = {**OWN, **XGBOOST}
CHOICES = {
    "booster": "gbtree dart",
    "tree_method": "auto hist approx exact",
    "grow_policy": "depthwise lossguide",
    "sampling_method": "uniform gradient_based",
    "objective": """
        reg:squarederror reg:squaredlogerror reg:logistic reg:pseudohubererror reg:absoluteerror
        reg:quantileerror reg:gamma reg:tweedie binary:logistic binary:logitraw
        binary:hinge count:poisson survival:cox survival:aft multi:softmax multi:softprob
        rank:ndcg rank:map rank:pairwise
    """,
    "eval_metric": """
        logloss error auc aucpr mlogloss merror rmse rmsle mae mape mphe quantile
        poisson-nloglik gamma-nloglik gamma-deviance tweedie-nloglik cox-nloglik aft-nloglik
        interval-regression-accuracy pre ndcg map ams
    """,
}
"""Values that XGBoost knows; of boosters, those with trees."""
_NUMBERED = re.compile(r"(error|ams|tweedie-nloglik|pre|ndcg|map)@[0-9.]+|(ndcg|map)(@[0-9]+)?-")
ALIASES = {
    "learning_rate": "eta",
    "min_split_loss": "gamma",
    "reg_lambda": "lambda",
    "reg_alpha": "alpha",
    "random_state": "seed",
}
ELSEWHERE = {
    "n_estimators": "num_boost_round",
    "num_round": "num_boost_round",
    "nrounds": "num_boost_round",
    "iterations": "num_boost_round",
    "num_iterations": "num_boost_round",
    "early_stopping": "early_stopping_rounds",
    "max_leaf_nodes": "max_leaves",
    "num_leaves": "max_leaves",
    "depth": "max_depth",
    "max_features": "colsample_bynode",
    "feature_fraction": "colsample_bytree",
    "bagging_fraction": "subsample",
    "lambda_l1": "alpha",
    "lambda_l2": "lambda",
    "l2_leaf_reg": "lambda",
    "class_weight": "scale_pos_weight",
    "n_jobs": "nthread",
    "num_threads": "nthread",
}
"""Names in XGBoost's other interfaces, in other libraries and in SageMaker's algorithm; ours."""


def refused(given: Mapping[str, Any], files: Container[str], own: Iterable[bytes]) -> str:
    """Return what is wrong with the first hyperparameter that nothing reads, or whose value is none
    of XGBoost's; empty if all are fine.

    Args:
        files: Names of the files that train.py imports. Without boosting.py, the team trains
            another kind of model, whose parameters nobody knows.
        own: Sources of the team's modules. One that holds a name as a string may read it; values
            are ours only where one calls boosting.fit.
    """
    if USED_BY not in files:
        return ""
    own = list(own)
    ours = any(b"boosting.fit" in source for source in own)
    problems = {name: _problem(name, value if ours else "") for name, value in given.items()}
    problems = {name: problem for name, problem in problems.items() if problem}
    if not problems:
        return ""
    texts = {
        node.value
        for source in own
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant)
    }
    return next((problem for name, problem in problems.items() if name not in texts), "")


def _problem(name: str, value: Any) -> str:
    if ALIASES.get(name, name) not in KNOWN:
        return unknown(name)
    quoted = isinstance(value, str) and value[:1] == '"'  # as the SDK does, and training undoes
    return "" if value in ABSENT or quoted else wrong(name, value)


def wrong(name: str, value: Any) -> str:
    """Return what is wrong with the value of a known hyperparameter; empty if it is fine."""
    key = ALIASES.get(name, name)
    kind = KNOWN[key]
    if kind is str:
        allowed, text = CHOICES.get(key, "").split(), str(value)
        if not allowed or text in allowed or (key == "eval_metric" and _NUMBERED.fullmatch(text)):
            return ""
        close = get_close_matches(text, allowed, n=1, cutoff=0.6)
        hint = f"did you mean '{close[0]}'?" if close else f"use one of {', '.join(allowed)}"
        return f"hyperparameter '{name}' is {value!r}; {hint}"
    try:
        fine = math.isfinite(float(value)) and (kind is float or float(value).is_integer())
    except (TypeError, ValueError, OverflowError):
        fine = False
    return (
        ""
        if fine
        else f"hyperparameter '{name}' is {value!r}, not a {'whole ' if kind is int else ''}number"
    )


def unknown(name: str) -> str:
    """Return that a hyperparameter is unknown, with the name that may be meant."""
    close = get_close_matches(name, [*KNOWN, *ALIASES], n=1, cutoff=0.5)
    meant = ELSEWHERE.get(name) or (close[0] if close else "")
    hint = f"did you mean '{meant}'?" if meant else "use XGBoost's own names"
    return f"hyperparameter '{name}' is unknown; {hint}"


def load() -> ModuleType:
    """Return the xgboost module, without its scikit-learn estimators.

    Importing scikit-learn for them takes three times as long as the rest (2 s), and 100 MB.
    """
    if "xgboost" not in sys.modules and "sklearn" not in sys.modules:
        sys.modules["sklearn"] = None  # type: ignore[assignment]
        try:
            import xgboost
        finally:
            del sys.modules["sklearn"]
    import xgboost

    return xgboost
