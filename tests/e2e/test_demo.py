"""The demo: every promise of a Service holds, and nothing stays behind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.box import KUBESVC


def test_the_demo_shows_that_every_promise_holds():
    """It ends well, says how long the first answer took, and cleans up."""
    boxes = set(Path("/run/kubesvc").glob("demo-*"))
    shown = subprocess.run([str(KUBESVC), "demo"], capture_output=True, text=True, timeout=300, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert shown.stdout.count("✓") >= 2 * 9
    assert re.search(r"First answer .*: \d+\.\d\d s after", shown.stdout)
    assert set(Path("/run/kubesvc").glob("demo-*")) <= boxes
