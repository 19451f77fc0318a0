"""first.py URL: ask until it answers, print when that was (seconds since the epoch), then idle."""

import signal
import sys
import time
import urllib.request

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while True:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=1) as answer:
            answer.read()
        break
    except OSError:
        time.sleep(0.005)
print(f"{time.time():.3f}", flush=True)
while True:
    signal.pause()
