"""Write rides.csv: the rentals of a made-up bike station on each day of three years."""

import csv
import random
from datetime import date, timedelta
from math import cos, pi
from pathlib import Path

random.seed(0)
with Path(__file__).with_name("rides.csv").open("w", newline="", encoding="utf-8") as stream:
    writer = csv.writer(stream)
    writer.writerow(["day", "temperature", "rain_mm", "rides"])
    for number in range(3 * 365):
        day = date(2022, 1, 1) + timedelta(days=number)
        season = cos(2 * pi * (number - 196) / 365.25)  # warmest in the middle of July
        temperature = round(11 + 9 * season + random.gauss(0, 3), 1)
        rain = round(random.expovariate(1 / 6), 1) if random.random() < 0.3 else 0.0
        wanted = 150 + 12 * max(temperature, 0) + 0.15 * number - 9 * min(rain, 12)
        wanted *= 0.6 if day.weekday() >= 5 else 1
        writer.writerow([day, temperature, rain, max(0, round(random.gauss(wanted, 25)))])
