"""The app of the worker processes in tests, which detect a stalled worker soon."""

import os

from suno_persona.distributed import make_app

app = make_app(os.environ["SUNO_JOURNAL_URL"], concurrency=4, stalled_worker_timeout=2)
