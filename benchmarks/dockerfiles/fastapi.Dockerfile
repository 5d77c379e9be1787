# as FastAPI's documentation shows it, with an environment instead of the system's packages
ARG BASE_IMAGE
FROM ${BASE_IMAGE} AS build
COPY wheels /wheels
RUN python3 -m venv /venv && /venv/bin/pip install --no-cache-dir --no-index --find-links /wheels \
    "fastapi" "uvicorn[standard]" "scikit-learn" "pandas"

FROM ${BASE_IMAGE}
COPY --from=build /venv /venv
WORKDIR /code
COPY customer.py fastapi_pandas.py linear.bin ./
ENV MODEL=linear.bin
EXPOSE 8000
CMD ["/venv/bin/uvicorn", "fastapi_pandas:app", "--host", "0.0.0.0", "--port", "8000"]
