# what `mlflow models generate-dockerfile` writes, without the nginx that it puts before its server: the server itself
# listens where nginx would
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
COPY wheels /wheels
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels \
    "mlflow" "scikit-learn" "pandas"
COPY mlflow_save.py linear.bin rows.jsonl /build/
RUN /venv/bin/python /build/mlflow_save.py /build/linear.bin /build/rows.jsonl /opt/ml/model

FROM ${BASE_IMAGE}
COPY --from=build /venv /venv
WORKDIR /opt/mlflow
COPY --from=build /opt/ml/model /opt/ml/model
ENV PATH=/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    MLFLOW_DISABLE_ENV_CREATION=True MLFLOW_DISABLE_TELEMETRY=true
RUN chmod o+rwX /opt/mlflow/
EXPOSE 8080
ENTRYPOINT ["mlflow", "models", "serve", "-m", "/opt/ml/model", "--env-manager", "local", "-h", "0.0.0.0", "-p", "8080"]
