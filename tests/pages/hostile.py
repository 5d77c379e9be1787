"""A model whose every name tries to be more than a name."""

from pathlib import Path

import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import ketch

SCRIPT = "<img src=x onerror=window.hacked=1>"
LINK = "[pay](javascript:window.hacked=1) ![p](https://evil.example/p.png)"
FORMULA = '=HYPERLINK("https://evil.example")'
PATH = "../../../etc/passwd"
PROTO = "__proto__"


def hostile(folder: Path) -> Path:
    """Pack it."""
    frame = pd.DataFrame(
        {
            SCRIPT: ["<script>window.hacked=1</script>", FORMULA, PATH, "{{7*7}}"] * 20,
            LINK: [float(at) for at in range(80)],
            PROTO: [float(at % 7) for at in range(80)],
            "</script><script>window.hacked=1</script>": ["`${window.hacked=1}`", "plain"] * 40,
        }
    )
    words = [name for name in frame if frame[name].dtype.kind not in "fi"]
    numbers = [name for name in frame if name not in words]
    encode = ColumnTransformer([("cat", OneHotEncoder(), words), ("num", StandardScaler(), numbers)])
    said = [int(at % 3 == 0 or at > 60) for at in range(80)]
    model = make_pipeline(encode, LogisticRegression()).fit(frame, said)
    path = folder / "hostile.ketch"
    target = "<b>churn</b>"
    ketch.pack(model, str(path), name="hostile", target=target, data=frame.assign(**{target: said}))
    return path
