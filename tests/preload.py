"""What the process that commands are forked from has imported."""

import pandas  # noqa: F401
import sklearn.ensemble
import sklearn.feature_extraction
import sklearn.linear_model
import sklearn.pipeline  # noqa: F401

import ketch.cli
import ketch.predict
import ketch.score
import ketch.serve.server  # noqa: F401
