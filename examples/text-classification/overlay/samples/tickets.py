"""Write tickets.csv: 800 made-up support tickets, and the team that answered each."""

import csv
import random
from pathlib import Path

TEAMS = {
    "billing": (
        "you charged my {card} twice",
        "the invoice of {month} shows the wrong amount",
        "please refund what I paid in {month}",
        "my {card} was declined, although it is valid",
    ),
    "delivery": (
        "the parcel I ordered in {month} has not arrived",
        "the courier left the {item} at the wrong door",
        "tracking has not changed for a week",
        "the {item} arrived damaged",
    ),
    "account": (
        "I cannot sign in to my account",
        "please change the email address of my account",
        "the link to reset my password has expired",
        "please delete my account and my {card}",
    ),
    "technical": (
        "the app crashes when I open the {item}",
        "the {item} does not connect after the update",
        "the screen stays black since {month}",
        "an error appears when I pay with my {card}",
    ),
}
WORDS = {
    "card": ("credit card", "debit card", "gift card"),
    "item": ("speaker", "lamp", "camera", "order"),
    "month": ("January", "March", "June", "October"),
}
CHANNELS = ("email", "chat", "phone")

random.seed(0)
with Path(__file__).with_name("tickets.csv").open("w", newline="", encoding="utf-8") as stream:
    writer = csv.writer(stream)
    writer.writerow(["message", "channel", "team"])
    for _ in range(800):
        team = random.choices(list(TEAMS), weights=[4, 3, 2, 1])[0]
        about = team if random.random() < 0.95 else random.choice(list(TEAMS))  # sent astray
        words = {name: random.choice(choices) for name, choices in WORDS.items()}
        message = random.choice(("Hello, ", "Hi there: ", "")) + random.choice(TEAMS[about])
        writer.writerow([message.format(**words), random.choice(CHANNELS), team])
