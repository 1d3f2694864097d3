"""The files of SageMaker Model Monitor, as JSON Schema: what AWS's documentation says of them.

Source: SageMaker developer guide, "Schema for Statistics (statistics.json file)", "Schema for
Constraints (constraints.json file)", and "Create a model quality baseline".
"""

from typing import Any

from jsonschema import Draft202012Validator

NUMBER, COUNT, TEXT = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "string"}
ENABLED = {"enum": ["Enabled", "Disabled"]}


def some(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has nothing but these properties, perhaps."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def each(**properties: Any) -> dict[str, Any]:
    """Return the schema of an object that has exactly these properties."""
    return some(**properties) | {"required": list(properties)}


def rows(item: Any) -> dict[str, Any]:
    return {"type": "array", "items": item}


COMMON = each(num_present=COUNT, num_missing=COUNT)
KLL = each(
    buckets=rows(each(lower_bound=NUMBER, upper_bound=NUMBER, count=COUNT))
    | {"minItems": 10, "maxItems": 10},
    sketch=each(parameters=each(c=NUMBER, k=NUMBER), data=rows(rows(NUMBER))),
)
NUMBERS = some(
    common=COMMON,
    **dict.fromkeys(("mean", "sum", "std_dev", "min", "max"), NUMBER),
    distribution=each(kll=KLL),
) | {"required": ["common", "min", "max", "distribution"]}
TEXTS = some(
    common=COMMON,
    distinct_count=COUNT,
    distribution=each(categorical=each(buckets=rows(each(value=TEXT, count=COUNT)))),
) | {"required": ["common"]}
STATISTICS = each(
    version=NUMBER,
    dataset=each(item_count=COUNT),
    features=rows(
        {
            "oneOf": [
                each(
                    name=TEXT,
                    inferred_type={"enum": ["Fractional", "Integral"]},
                    numerical_statistics=NUMBERS,
                ),
                each(name=TEXT, inferred_type={"const": "String"}, string_statistics=TEXTS),
                each(name=TEXT, inferred_type={"const": "Unknown"}),
            ]
        }
    ),
)
FEATURE = some(
    name=TEXT,
    inferred_type={"enum": ["Integral", "Fractional", "String", "Unknown"]},
    completeness={"type": "number", "minimum": 0, "maximum": 1},
    num_constraints=each(is_non_negative={"type": "boolean"}),
    string_constraints=each(domains=rows(TEXT)),
) | {"required": ["name", "inferred_type", "completeness"]}
CONSTRAINTS = each(
    version=NUMBER,
    features=rows(FEATURE),
    monitoring_config=each(
        evaluate_constraints=ENABLED,
        emit_metrics=ENABLED,
        datatype_check_threshold=NUMBER,
        domain_content_threshold=NUMBER,
        distribution_constraints=each(
            perform_comparison=ENABLED,
            comparison_threshold=NUMBER,
            comparison_method={"enum": ["Simple", "Robust"]},
            categorical_comparison_threshold=NUMBER,
            categorical_drift_method={"enum": ["LInfinity", "ChiSquared"]},
        ),
    ),
)
LIMITS = {
    "type": "object",
    "minProperties": 1,
    "additionalProperties": each(
        threshold=NUMBER,
        comparison_operator={"enum": ["GreaterThanThreshold", "LessThanThreshold"]},
    ),
}
SCHEMAS = {"statistics": STATISTICS, "constraints": CONSTRAINTS} | {
    task: each(version=NUMBER, **{f"{task}_constraints": LIMITS})
    for task in ("binary_classification", "multiclass_classification", "regression")
}


def refuse(kind: str, content: Any) -> None:
    """Raise ValidationError unless the content has the form of statistics, constraints or a task's
    quality."""
    Draft202012Validator(SCHEMAS[kind]).validate(content)
