"""Customers of a telecom company that never was, as its billing system would export them."""

import csv
import io
import json
import math
import random
from collections.abc import Mapping
from typing import Final

Customer = dict[str, str | int | float]

LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
MONTHLY: Final = {  # service -> what it adds to the monthly charges, in dollars
    "OnlineSecurity": 5.0,
    "OnlineBackup": 5.0,
    "DeviceProtection": 5.0,
    "TechSupport": 5.0,
    "StreamingTV": 10.0,
    "StreamingMovies": 10.0,
}
INTERNET: Final = {"No": 0.0, "DSL": 25.0, "Fiber optic": 50.0}
PHONE, SECOND_LINE = 20.0, 5.0
SLIP: Final = "bank_transfer"  # for "bank_transfer_(automatic)": two teams never spell everything alike
NEVER_BILLED: Final = " "  # how the export writes the total of somebody whom no bill has reached yet
LEAVING: Final = (  # column, value -> what it adds to the log-odds of leaving
    ("Contract", "Month-to-month", 1.50),
    ("Contract", "Two year", -1.00),
    ("InternetService", "Fiber optic", 1.10),
    ("InternetService", "No", -0.90),
    ("OnlineSecurity", "Yes", -0.50),
    ("TechSupport", "Yes", -0.50),
    ("StreamingTV", "Yes", 0.20),
    ("StreamingMovies", "Yes", 0.20),
    ("PaymentMethod", "Electronic check", 0.55),
    ("PaperlessBilling", "Yes", 0.35),
    ("SeniorCitizen", 1, 0.25),
    ("Dependents", "Yes", -0.20),
)
FIRST_DAY, LOYALTY = -1.55, -0.034  # log-odds of leaving at the start, and what each month with the company adds


def churn_csv(chance: random.Random, customers: int = 5000) -> str:
    """Write the export that the model is trained on: who the customers were, and who left."""
    return _csv([customer(chance) for _ in range(customers)])


def customers_csv(chance: random.Random, customers: int = 30) -> str:
    """Write the marketing team's own customers, in its tidier spelling and with one slip of the pen."""
    rows = [_tidy(customer(chance)) for _ in range(customers)]
    rows[customers // 2]["paymentmethod"] = SLIP
    return _csv(rows)


def customer_json(chance: random.Random) -> str:
    """Write one customer, of those who are going to leave, as the service is asked about them."""
    leaving = customer(chance)
    while leaving["Churn"] == "No":
        leaving = customer(chance)
    asked = {name: value for name, value in _tidy(leaving).items() if name not in {"customerid", "email"}}
    return json.dumps(asked, indent=2) + "\n"


def customer(chance: random.Random) -> Customer:
    """Draw one customer: the person, the services, the bill, and whether they left."""
    drawn = _person(chance)
    drawn |= _services(chance, int(drawn["tenure"]))
    drawn |= _bill(chance, drawn)
    odds = FIRST_DAY + LOYALTY * int(drawn["tenure"])
    odds += sum(effect for column, value, effect in LEAVING if drawn[column] == value)
    return drawn | {"Churn": _yes(chance, 1 / (1 + math.exp(-odds)))}


def _yes(chance: random.Random, probability: float) -> str:
    return "Yes" if chance.random() < probability else "No"


def _one_of(chance: random.Random, weights: Mapping[str, float]) -> str:
    return chance.choices(list(weights), list(weights.values()))[0]


def _person(chance: random.Random) -> Customer:
    number = "".join(chance.choices("0123456789", k=4)) + "-" + "".join(chance.choices(LETTERS, k=5))
    partner = _yes(chance, 0.48)
    new, loyal = chance.random() < 0.25, chance.random() < 0.22
    months = 0.8 + chance.random() * 12 if new else 60 + chance.random() * 13 if loyal else chance.random() * 73
    return {
        "customerID": number,
        "gender": _one_of(chance, {"Female": 1, "Male": 1}),
        "SeniorCitizen": int(chance.random() < 0.16),
        "Partner": partner,
        "Dependents": _yes(chance, 0.50 if partner == "Yes" else 0.11),
        "tenure": int(months),
    }


def _services(chance: random.Random, tenure: int) -> Customer:
    phone = _yes(chance, 0.90)
    lines = _yes(chance, 0.25 + 0.005 * tenure) if phone == "Yes" else "No phone service"
    internet = _one_of(chance, {"DSL": 34, "Fiber optic": 44, "No": 22}) if phone == "Yes" else "DSL"
    drawn: Customer = {"PhoneService": phone, "MultipleLines": lines, "InternetService": internet}
    for service in MONTHLY:
        drawn[service] = _yes(chance, 0.22 + 0.005 * tenure) if internet != "No" else "No internet service"
    return drawn


def _bill(chance: random.Random, drawn: Customer) -> Customer:
    tenure = int(drawn["tenure"])
    contract = {"Month-to-month": 1.15 - tenure / 90, "One year": 0.1 + tenure / 150, "Two year": 0.04 + tenure / 90}
    paying = {
        "Electronic check": 34,
        "Mailed check": 22,
        "Bank transfer (automatic)": 22,
        "Credit card (automatic)": 22,
    }
    price = INTERNET[str(drawn["InternetService"])] + sum(MONTHLY[each] for each in MONTHLY if drawn[each] == "Yes")
    price += PHONE * (drawn["PhoneService"] == "Yes") + SECOND_LINE * (drawn["MultipleLines"] == "Yes")
    monthly = round(20 * (price + chance.uniform(-1.5, 1.5))) / 20  # prices end in 0 or 5 cents
    changes = 1 + chance.uniform(-0.06, 0.06)  # what the customer had before was cheaper or dearer
    return {
        "Contract": _one_of(chance, contract),
        "PaperlessBilling": _yes(chance, 0.59),
        "PaymentMethod": _one_of(chance, paying),
        "MonthlyCharges": monthly,
        "TotalCharges": round(tenure * monthly * changes, 2) if tenure else NEVER_BILLED,
    }


def _tidy(drawn: Customer) -> Customer:
    """Spell a customer as the model's inputs are spelled, with an address and without the outcome."""
    tidy: Customer = {
        name.lower(): value.strip().lower().replace(" ", "_") if isinstance(value, str) else value
        for name, value in drawn.items()
        if name != "Churn"
    }
    tidy["totalcharges"] = tidy["totalcharges"] or 0.0
    return {"customerid": tidy.pop("customerid"), "email": f"{drawn['customerID']}@example.com".lower()} | tidy


def _csv(rows: list[Customer]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
