"""What a service counts, for Prometheus. Several processes behind one port are added up."""

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client's own variable
SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
CLIPS = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Counters of a process."""

    def __init__(self):
        self.registry = CollectorRegistry()
        own = {"registry": self.registry}
        self.requests = Counter("aigcvqa_requests", "Requests that were answered", ["path", "status"], **own)
        self.seconds = Histogram("aigcvqa_request_seconds", "Time of a request", ["path"], buckets=SECONDS, **own)
        self.clips = Counter("aigcvqa_clips", "Clips by outcome: scored, failed, refused", ["outcome"], **own)
        self.batch_clips = Histogram("aigcvqa_batch_clips", "Clips per pass of the model", buckets=CLIPS, **own)
        self.waiting = Gauge(
            "aigcvqa_waiting_clips", "Clips that wait or are scored", multiprocess_mode="livesum", **own
        )

    def page(self) -> bytes:
        """The metrics of all processes of the service, in Prometheus's text format."""
        if FOLDER not in os.environ:
            return generate_latest(self.registry)
        for file in Path(os.environ[FOLDER]).glob("gauge_livesum_*.db"):
            pid = int(file.stem.rpartition("_")[2])
            if not _is_alive(pid):
                with suppress(FileNotFoundError):  # another process has removed it
                    mark_process_dead(pid)
        registry = CollectorRegistry()
        MultiProcessCollector(registry)
        return generate_latest(registry)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
