"""The demo: every promise of a Service holds, and nothing stays behind."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from support.box import KUBESVC


def test_the_demo_shows_that_every_promise_holds():
    """It ends well, says how long the first answer took, and cleans up."""
    demo = subprocess.Popen([str(KUBESVC), "demo"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    shown, complaints = demo.communicate(timeout=300)
    assert demo.returncode == 0, shown + complaints
    assert shown.count("✓") >= 2 * 9
    assert re.search(r"First answer .*: \d+\.\d\d s after", shown)
    assert not Path(f"/run/kubesvc/demo-{demo.pid}").exists()
