"""The files that the notebooks read: made anew with a fixed seed, alike on every machine."""

from pathlib import Path

import numpy as np
import pandas as pd

ROWS = 1200


def write(folder: Path) -> None:
    """Write customers.csv, houses.csv and reviews.csv."""
    customers().to_csv(folder / "customers.csv", index=False)
    houses().to_csv(folder / "houses.csv", index=False)
    reviews().to_csv(folder / "reviews.csv", index=False)


def customers() -> pd.DataFrame:
    """Make customers of a telephone company, with the columns and quirks of the well-known churn data."""
    draw = np.random.default_rng(7)

    def one_of(words: list[str], shares: list[float]) -> np.ndarray:
        return draw.choice(words, ROWS, p=shares)

    tenure = np.where(draw.random(ROWS) < 0.01, 0, draw.integers(1, 73, ROWS))
    internet = one_of(["DSL", "Fiber optic", "No"], [0.34, 0.44, 0.22])
    phone = one_of(["Yes", "No"], [0.9, 0.1])
    contract = one_of(["Month-to-month", "One year", "Two year"], [0.55, 0.21, 0.24])

    def service() -> np.ndarray:
        return np.where(internet == "No", "No internet service", one_of(["Yes", "No"], [0.4, 0.6]))

    monthly = np.round(20 + 25 * (internet == "DSL") + 50 * (internet == "Fiber optic") + draw.uniform(0, 25, ROWS), 2)
    total = np.round(tenure * monthly * draw.uniform(0.95, 1.05, ROWS), 2)
    lean = -1.4 + 1.2 * (contract == "Month-to-month") + 0.9 * (internet == "Fiber optic") - 0.03 * tenure
    leaves = draw.random(ROWS) < 1 / (1 + np.exp(-lean))
    return pd.DataFrame(
        {
            "customerID": [
                f"{draw.integers(1000, 9999)}-{''.join(draw.choice([*'ABCDEFGHJK'], 5))}" for _ in range(ROWS)
            ],
            "gender": one_of(["Female", "Male"], [0.5, 0.5]),
            "SeniorCitizen": (draw.random(ROWS) < 0.16).astype(int),
            "Partner": one_of(["Yes", "No"], [0.48, 0.52]),
            "Dependents": one_of(["Yes", "No"], [0.3, 0.7]),
            "tenure": tenure,
            "PhoneService": phone,
            "MultipleLines": np.where(phone == "No", "No phone service", one_of(["Yes", "No"], [0.45, 0.55])),
            "InternetService": internet,
            "OnlineSecurity": service(),
            "OnlineBackup": service(),
            "DeviceProtection": service(),
            "TechSupport": service(),
            "StreamingTV": service(),
            "StreamingMovies": service(),
            "Contract": contract,
            "PaperlessBilling": one_of(["Yes", "No"], [0.6, 0.4]),
            "PaymentMethod": one_of(
                ["Electronic check", "Mailed check", "Bank transfer (automatic)", "Credit card (automatic)"],
                [0.34, 0.22, 0.22, 0.22],
            ),
            "MonthlyCharges": monthly,
            "TotalCharges": [" " if months == 0 else str(value) for months, value in zip(tenure, total, strict=True)],
            "Churn": np.where(leaves, "Yes", "No"),
        }
    )


def houses() -> pd.DataFrame:
    """Make houses with their prices."""
    draw = np.random.default_rng(8)
    area, rooms, age = draw.integers(40, 260, 800), draw.integers(1, 8, 800), draw.integers(0, 90, 800)
    district = draw.choice([*"ABCDEF"], 800)
    garden = draw.choice(["yes", "no", ""], 800, p=[0.5, 0.4, 0.1])
    worth = np.array([900, 1200, 1500, 1900, 2400, 3000])[[*map("ABCDEF".index, district)]]
    price = np.round(
        area * worth + rooms * 4000 - age * 350 + 9000 * (garden == "yes") + draw.normal(0, 12000, 800), -2
    )
    return pd.DataFrame(
        {"area": area, "rooms": rooms, "age": age, "district": district, "garden": garden, "price": price.clip(20000)}
    )


def reviews() -> pd.DataFrame:
    """Make reviews with one to five stars."""
    draw = np.random.default_rng(9)
    good = "great lovely perfect quick friendly excellent happy recommend tasty clean".split()
    bad = "awful broken slow rude dirty terrible refund disappointed cold never".split()
    plain = "the delivery was order staff food phone box room price service came very it and with my we".split()
    stars = draw.integers(1, 6, 600)
    texts = []
    for star in stars:
        words = draw.choice(plain, draw.integers(6, 14)).tolist()
        words += [draw.choice(good if draw.random() < star / 5 - 0.1 else bad) for _ in range(draw.integers(2, 5))]
        draw.shuffle(words)
        texts.append(" ".join(words).capitalize() + draw.choice([".", "!", "..."]))
    return pd.DataFrame({"text": texts, "stars": stars})
