"""Write loans.csv: 2,000 made-up loans, and whether they were repaid."""

import csv
import random
from math import exp
from pathlib import Path

RISK = {"car": -0.4, "home": -0.8, "business": 0.9, "education": 0.0}

random.seed(0)
with Path(__file__).with_name("loans.csv").open("w", newline="", encoding="utf-8") as stream:
    writer = csv.writer(stream)
    writer.writerow(["amount", "purpose", "income", "years_employed", "outcome"])
    for _ in range(2000):
        amount, income = random.randrange(2_000, 30_000, 100), random.randrange(20_000, 90_000, 500)
        purpose, years = random.choice(list(RISK)), min(int(random.expovariate(0.15)), 40)
        logit = 9 * amount / income - 0.15 * years + RISK[purpose] - 4
        outcome = "default" if random.random() < 1 / (1 + exp(-logit)) else "repaid"
        writer.writerow([amount, purpose, income, years, outcome])
