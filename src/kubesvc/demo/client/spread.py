"""spread.py URL FIELD COUNT: COUNT new connections; print as JSON how often each FIELD of the answers was seen."""

import collections
import concurrent.futures
import json
import sys
import urllib.request

url, field, count = sys.argv[1], sys.argv[2], int(sys.argv[3])


def ask(_):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)[field]


with concurrent.futures.ThreadPoolExecutor(8) as pool:
    print(json.dumps(collections.Counter(pool.map(ask, range(count)))))
