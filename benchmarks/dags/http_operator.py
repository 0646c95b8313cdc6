"""One HttpOperator task for each event, which is what Airflow offers by itself (see benchmarks/sending.py)."""

import json
import os

from airflow.providers.http.operators.http import HttpOperator
from airflow.sdk import DAG

with DAG("http_operator", schedule=None):
    HttpOperator.partial(
        task_id="send",
        http_conn_id="attentive",
        endpoint="v1/events/custom",
        headers={"Content-Type": "application/json"},
    ).expand(data=json.loads(os.environ.get("BENCH_BODIES", "[]")))
