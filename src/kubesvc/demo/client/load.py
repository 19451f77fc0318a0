"""load.py URL SECONDS: a new connection after the other from four threads.

Prints {"asked": N, "failed": [[began, ended, error], ...]} with times in seconds since the epoch.
"""

import json
import sys
import threading
import time
import urllib.request

url, end = sys.argv[1], time.time() + float(sys.argv[2])
asked, failed = [0] * 4, []


def run(number):
    while time.time() < end:
        began = time.time()
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                answer.read()
        except OSError as error:
            failed.append([began, time.time(), str(error)])
        asked[number] += 1


print("started", flush=True)
threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps({"asked": sum(asked), "failed": failed}))
