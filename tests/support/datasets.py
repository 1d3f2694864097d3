"""Small tables like those that teams bring: mixed types, gaps, ids, dates, rare classes.

Each is random but seeded, with a target that depends on its columns. Must not know about model/.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Table = dict[str, list[Any]]


def write_csv(path: Path, table: Mapping[str, Sequence[Any]], delimiter: str = ",") -> Path:
    """Write the columns as CSV, None as an empty field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator="\n")
        writer.writerow(table)
        for row in zip(*table.values(), strict=True):
            writer.writerow(["" if value is None else value for value in row])
    return path


def _gaps(random: np.random.Generator, values: Sequence[Any], share: float) -> list[Any]:
    return [
        None if gap else v
        for v, gap in zip(values, random.random(len(values)) < share, strict=True)
    ]


def _chance(random: np.random.Generator, logit: np.ndarray) -> np.ndarray:
    return random.random(len(logit)) < 1 / (1 + np.exp(-logit))


def passengers(rows: int = 800, seed: int = 0) -> Table:
    """Make Titanic's: a 0/1 target, names with titles, sparse cabins, tickets, missing ages."""
    r = np.random.default_rng(seed)
    man, grade = r.random(rows) < 0.64, r.choice([1, 2, 3], rows, p=[0.24, 0.21, 0.55])
    age = np.round(np.clip(r.gamma(4, 7.5, rows), 0.5, 80), 1)
    fare = np.round(np.exp(r.normal(4.6 - 0.9 * grade, 0.5)), 4)
    child = age < 15
    title = np.where(
        man, np.where(child, "Master", "Mr"), np.where(r.random(rows) < 0.6, "Miss", "Mrs")
    )
    port = r.choice(["S", "C", "Q"], rows, p=[0.72, 0.19, 0.09])
    logit = (
        2.6 - 2.7 * man - 0.9 * (grade - 1) - 0.015 * age + 1.8 * child * man + 0.3 * (port == "C")
    )
    known = r.random(rows) < np.array([0.8, 0.15, 0.03])[grade - 1]
    cabin = [f"{'ABCDE'[r.integers(5)]}{r.integers(1, 130)}" if k else None for k in known]
    return {
        "PassengerId": list(range(1, rows + 1)),
        "Pclass": grade.tolist(),
        "Name": [f"Fam{r.integers(rows)}, {t}. N{i}" for i, t in enumerate(title)],
        "Sex": np.where(man, "male", "female").tolist(),
        "Age": _gaps(r, age.tolist(), 0.2),
        "SibSp": r.poisson(0.5, rows).tolist(),
        "Ticket": [f"{p}{r.integers(1000, 99999)}" for p in r.choice(["PC ", "A/5 ", ""], rows)],
        "Fare": fare.tolist(),
        "Cabin": cabin,
        "Embarked": _gaps(r, port.tolist(), 0.01),
        "Survived": _chance(r, logit).astype(int).tolist(),
    }  # fmt: skip


def incomes(rows: int = 3000, seed: int = 0) -> Table:
    """Make Adult's: string labels, `?` for missing, leading blanks, a category of 40 levels."""
    r = np.random.default_rng(seed)
    jobs = [f"job-{i}" for i in range(14)]
    worth = r.normal(0, 0.8, 14)
    job, years = r.integers(0, 14, rows), r.integers(1, 17, rows)
    age, hours = r.integers(17, 90, rows), np.clip(r.normal(40, 12, rows), 1, 99).astype(int)
    gain = np.where(r.random(rows) < 0.08, np.exp(r.normal(8.5, 1, rows)), 0).astype(int)
    country = r.zipf(1.8, rows) % 40
    married = r.choice(
        ["Married", "Never-married", "Divorced", "Widowed"], rows, p=[0.47, 0.33, 0.15, 0.05]
    )
    logit = (-6.2 + 0.3 * years + 0.05 * np.minimum(age, 55) + 0.03 * (hours - 40) + worth[job]
             + 1.6 * (married == "Married") + (gain > 6000) * 3 - 1)  # fmt: skip
    return {
        "age": age.tolist(),
        "workclass": r.choice([" Private", " Self-emp", " Gov", " ?"], rows).tolist(),
        "fnlwgt": r.integers(12285, 1484705, rows).tolist(),
        "education-num": years.tolist(),
        "marital status": [f" {m}" for m in married],
        "occupation": [f" {jobs[j]}" for j in job],
        "capital-gain": gain.tolist(),
        "hours-per-week": hours.tolist(),
        "native-country": [f" country-{c}" for c in country],
        "income": np.where(_chance(r, logit), " >50K", " <=50K").tolist(),
    }  # fmt: skip


def houses(rows: int = 1400, seed: int = 0) -> Table:
    """Make house prices: a skewed target, "NA" as a level, years, 25 neighborhoods."""
    r = np.random.default_rng(seed)
    place = r.integers(0, 25, rows)
    value = r.normal(0, 0.25, 25)
    area, quality = np.round(np.exp(r.normal(7.2, 0.35, rows))), r.integers(1, 11, rows)
    built = r.integers(1900, 2011, rows)
    garage = np.where(r.random(rows) < 0.06, "NA", r.choice(["Attchd", "Detchd", "BuiltIn"], rows))
    log = 8.2 + 0.45 * np.log(area) + 0.09 * quality + value[place] + 0.0025 * (built - 1950)
    log += 0.08 * (garage != "NA") + r.normal(0, 0.12, rows)
    return {
        "Id": list(range(1, rows + 1)),
        "Neighborhood": [f"N{p:02d}" for p in place],
        "GrLivArea": area.astype(int).tolist(),
        "OverallQual": quality.tolist(),
        "YearBuilt": built.tolist(),
        "LotFrontage": _gaps(r, np.round(r.normal(70, 20, rows)).tolist(), 0.18),
        "GarageType": garage.tolist(),
        "CentralAir": r.choice(["Y", "N"], rows, p=[0.93, 0.07]).tolist(),
        "SalePrice": np.round(np.exp(log)).astype(int).tolist(),
    }


def churn(rows: int = 2000, seed: int = 0) -> Table:
    """Make Telco's: Yes/No flags and target, a blank for a missing number, a unique customer id."""
    r = np.random.default_rng(seed)
    tenure = r.integers(0, 73, rows)
    monthly = np.round(r.uniform(18, 119, rows), 2)
    contract = r.choice(["Month-to-month", "One year", "Two year"], rows, p=[0.55, 0.21, 0.24])
    net = r.choice(["DSL", "Fiber optic", "No"], rows)
    logit = (
        0.2
        - 0.04 * tenure
        + 0.012 * monthly
        - 1.4 * (contract != "Month-to-month")
        + 0.8 * (net == "Fiber optic")
        - 0.9
    )
    return {
        "customerID": [f"{n}-{''.join(r.choice(list('ABCDEFGH'), 5))}" for n in range(rows)],
        "SeniorCitizen": (r.random(rows) < 0.16).astype(int).tolist(),
        "Partner": r.choice(["Yes", "No"], rows).tolist(),
        "tenure": tenure.tolist(),
        "Contract": contract.tolist(),
        "InternetService": net.tolist(),
        "MonthlyCharges": monthly.tolist(),
        "TotalCharges": [round(float(c), 2) if c else " " for c in tenure * monthly],
        "Churn": np.where(_chance(r, logit), "Yes", "No").tolist(),
    }  # fmt: skip


def fraud(rows: int = 10_000, seed: int = 0) -> Table:
    """Make numbers only, 1% of them positive."""
    r = np.random.default_rng(seed)
    x = r.normal(size=(rows, 10))
    amount = np.round(np.exp(r.normal(3, 1.4, rows)), 2)
    logit = -7.2 + 1.5 * x[:, 0] + 1.2 * x[:, 1] * (x[:, 2] > 0) + 0.5 * np.log(amount)
    table: Table = {f"V{i + 1}": np.round(x[:, i], 6).tolist() for i in range(10)}
    return {**table, "Amount": amount.tolist(), "Class": _chance(r, logit).astype(int).tolist()}


def orders(rows: int = 4000, seed: int = 0) -> Table:
    """Make dates, a shop of 600 that matters, free text, a boolean, and a number to predict."""
    r = np.random.default_rng(seed)
    shops = r.normal(0, 12, 600)
    shop = r.integers(0, 600, rows)
    start = np.datetime64("2021-01-01T00:00:00")
    at = start + r.integers(0, 3 * 365 * 86400, rows).astype("timedelta64[s]")
    month = at.astype("datetime64[M]").astype(int) % 12 + 1
    weekend = (at.astype("datetime64[D]").astype(int) + 3) % 7 >= 5
    express = r.random(rows) < 0.3
    fragile = r.random(rows) < 0.2
    nouns = ["desk", "lamp", "chair", "shelf", "sofa", "table"]
    note = [
        f"{'handle with care, fragile! ' if f else ''}{r.choice(nouns)} no {r.integers(1, 9)}"
        for f in fragile
    ]
    value = 60 + shops[shop] + 14 * weekend + 9 * (month == 12) - 15 * express + 8 * fragile
    return {
        "order id": [f"{v:032x}" for v in r.integers(0, 2**62, rows)],
        "ordered_at": [str(v).replace("T", " ") for v in at],
        "shop": [f"shop_{s:04d}" for s in shop],
        "express?": np.where(express, "true", "false").tolist(),
        "note": note,
        "weight [kg] <gross>": _gaps(r, np.round(r.gamma(2, 3, rows), 2).tolist(), 0.1),
        "hours": np.round(value + r.normal(0, 6, rows), 1).tolist(),
    }  # fmt: skip


def letters(rows: int = 3000, seed: int = 0, classes: int = 30) -> Table:
    """Make many classes, named by text."""
    r = np.random.default_rng(seed)
    centres = np.random.default_rng(1).normal(size=(classes, 8)) * 1.6
    label = r.integers(0, classes, rows)
    x = centres[label] + r.normal(size=(rows, 8))
    table: Table = {f"x{i}": np.round(x[:, i], 4).tolist() for i in range(8)}
    return {**table, "letter": [f"class {k}" for k in label]}


def rare(rows: int = 300, seed: int = 0) -> Table:
    """Make five classes, two of them with one and with two rows."""
    r = np.random.default_rng(seed)
    label = r.choice(["a", "b", "c"], rows)
    label[:3] = ["once", "twice", "twice"]
    x = np.array([ord(v[0]) for v in label]) + r.normal(size=rows)
    return {
        "x": x.tolist(),
        "colour": r.choice(["red", "blue"], rows).tolist(),
        "kind": label.tolist(),
    }


ALL: dict[str, tuple[Callable[..., Table], str, str]] = {
    "passengers": (passengers, "Survived", "binary"),
    "incomes": (incomes, "income", "binary"),
    "houses": (houses, "SalePrice", "regression"),
    "churn": (churn, "Churn", "binary"),
    "fraud": (fraud, "Class", "binary"),
    "orders": (orders, "hours", "regression"),
    "letters": (letters, "letter", "multiclass"),
    "rare": (rare, "kind", "multiclass"),
}
"""Name to generator, target column and task."""
