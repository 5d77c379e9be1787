"""What the process that commands are forked from has imported."""

import pandas  # noqa: F401
import sklearn.ensemble  # noqa: F401
import sklearn.feature_extraction  # noqa: F401
import sklearn.linear_model  # noqa: F401
import sklearn.pipeline  # noqa: F401

import ketch.cli
import ketch.predict
import ketch.score
import ketch.serve.front  # noqa: F401
