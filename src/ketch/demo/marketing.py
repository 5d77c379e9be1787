"""Decide which customers get a promotional e-mail, by asking the churn service about each of them.

python marketing.py --db customers.db --service http://localhost:9696 --customers customers.csv

The customers stand in an SQLite database, which is made from the CSV file when it holds none yet. Decisions and
probabilities are written back into it. Nothing needs to be installed: the service is asked over plain HTTP.
"""

import argparse
import csv
import json
import sqlite3
import sys
import urllib.error
import urllib.request
from contextlib import closing
from typing import Any

CREATE = """
    CREATE TABLE IF NOT EXISTS customers (
        customerid TEXT PRIMARY KEY, email TEXT, gender TEXT, seniorcitizen INTEGER, partner TEXT, dependents TEXT,
        tenure INTEGER, phoneservice TEXT, multiplelines TEXT, internetservice TEXT, onlinesecurity TEXT,
        onlinebackup TEXT, deviceprotection TEXT, techsupport TEXT, streamingtv TEXT, streamingmovies TEXT,
        contract TEXT, paperlessbilling TEXT, paymentmethod TEXT, monthlycharges REAL, totalcharges REAL,
        decision TEXT, probability REAL
    )"""
INSERT = """
    INSERT INTO customers VALUES (
        :customerid, :email, :gender, :seniorcitizen, :partner, :dependents,
        :tenure, :phoneservice, :multiplelines, :internetservice, :onlinesecurity,
        :onlinebackup, :deviceprotection, :techsupport, :streamingtv, :streamingmovies,
        :contract, :paperlessbilling, :paymentmethod, :monthlycharges, :totalcharges,
        NULL, NULL
    )"""
DECIDE = "UPDATE customers SET decision = ?, probability = ? WHERE customerid = ?"
SUMMARY = "SELECT decision, count(*), avg(probability) FROM customers WHERE probability NOT NULL GROUP BY decision"
OURS = ("customerid", "email", "decision", "probability")  # nobody else's business


class Refused(Exception):
    """The service does not answer for this customer, and says why."""


def open_database(path: str, customers: str) -> sqlite3.Connection:
    """Open the database, and fill it from the CSV file when it is new."""
    db = sqlite3.connect(path)
    db.row_factory = sqlite3.Row
    db.execute(CREATE)
    if db.execute("SELECT count(*) FROM customers").fetchone()[0] == 0:
        with open(customers, encoding="utf-8", newline="") as file:
            db.executemany(INSERT, csv.DictReader(file))
    return db


def ask(service: str, customer: dict[str, Any]) -> dict[str, Any]:
    """Ask the churn service about one customer."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{service}/predict", json.dumps(customer).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise Refused(reason(error)) from None
    except OSError as error:
        sys.exit(f"The churn service at {service} cannot be reached: {error}")
    return answer


def reason(error: urllib.error.HTTPError) -> str:
    """Say why the service refused: it answers with application/problem+json."""
    try:
        problem = json.load(error)
        return f"{problem['detail']}. {problem.get('hint', '')}".strip()
    except (ValueError, KeyError, TypeError):
        return f"status {error.code}"


def decide(service: str, customer: dict[str, Any]) -> tuple[str, float | None]:
    """Decide about one customer: send the e-mail to those who would leave."""
    known = {column: value for column, value in customer.items() if column not in OURS}
    try:
        answer = ask(service, known)
    except Refused as refusal:
        print(f"{customer['customerid']} is skipped: {refusal}")
        return "skipped", None
    return "send e-mail" if answer["churn"] else "no e-mail", answer["churn_probability"]


def main() -> None:
    """Decide about every customer, write the decisions down and sum them up."""
    parser = argparse.ArgumentParser(description="Decide which customers get a promotional e-mail.")
    parser.add_argument("--db", default="customers.db")
    parser.add_argument("--service", default="http://localhost:9696")
    parser.add_argument("--customers", default="customers.csv")
    given = parser.parse_args()
    with closing(open_database(given.db, given.customers)) as db, db:  # all decisions are written, or none
        for customer in db.execute("SELECT * FROM customers").fetchall():
            db.execute(DECIDE, (*decide(given.service, dict(customer)), customer["customerid"]))
        print(f"{'decision':<12} {'customers':>9} {'mean probability':>17}")
        for decision, count, mean in db.execute(SUMMARY):
            print(f"{decision:<12} {count:>9} {mean:>17.3f}")


if __name__ == "__main__":
    main()
