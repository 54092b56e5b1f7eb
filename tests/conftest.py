"""Settings of all tests, made before anything is imported."""

import os

# their tensors are so small that a second thread only waits for the first
os.environ.setdefault("OMP_NUM_THREADS", "1")
# ray lets its workers give way to everything else: beside other tests they would wait for minutes
os.environ.setdefault("RAY_worker_niceness", "0")
