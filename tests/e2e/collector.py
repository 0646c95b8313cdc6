"""Where Airflow sends its metrics, by OpenTelemetry's protocol over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Collector:
    """Keeps what it is sent, as it is: names and values are plain text in it."""

    def __init__(self) -> None:
        self.said: list[bytes] = []

    @contextmanager
    def running(self) -> Iterator[dict[str, str]]:
        """While it listens: the settings by which Airflow sends here."""
        said = self.said

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                said.append(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                return

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield {
                "AIRFLOW__METRICS__OTEL_ON": "True",
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"http://127.0.0.1:{server.server_port}/v1/metrics",
                "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "http/protobuf",
                "OTEL_METRIC_EXPORT_INTERVAL": "15000",
            }
            server.shutdown()
            thread.join()
