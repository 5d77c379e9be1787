"""The request schema that services with pydantic write by hand."""

from pydantic import BaseModel


class Customer(BaseModel):
    gender: str
    seniorcitizen: str
    partner: str
    dependents: str
    tenure: int
    phoneservice: str
    multiplelines: str
    internetservice: str
    onlinesecurity: str
    onlinebackup: str
    deviceprotection: str
    techsupport: str
    streamingtv: str
    streamingmovies: str
    contract: str
    paperlessbilling: str
    paymentmethod: str
    monthlycharges: float
    totalcharges: float


class Answer(BaseModel):
    churn: bool
    churn_probability: float
