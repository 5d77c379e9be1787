# what `bentoml containerize` sets up: an environment, a user, the service in its home
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
COPY wheels /wheels
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels \
    "bentoml" "scikit-learn" "pandas"

FROM ${BASE_IMAGE}
COPY --from=build /venv /venv
RUN groupadd --gid 1034 bentoml && useradd --uid 1034 --gid bentoml --create-home bentoml
USER bentoml
WORKDIR /home/bentoml/bento
COPY customer.py bentoml_pandas.py linear.bin ./
ENV MODEL=linear.bin BENTOML_DO_NOT_TRACK=True
EXPOSE 3000
CMD ["/venv/bin/bentoml", "serve", "bentoml_pandas:Churn", "--host", "0.0.0.0", "--port", "3000"]
