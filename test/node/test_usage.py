import subprocess
import sys
import time

import psutil

from mfuser_ros.node.usage import UsageMeter

BUSY = "data = bytearray(50_000_000)\nprint('ready', flush=True)\nwhile True: pass"
IDLE = "import sys\nprint('ready', flush=True)\nsys.stdin.read()"


def measured(program, *, used_s):
    """Usage of a process until it has used so much processor time since it was ready."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stdin=pipe, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        seen, end_s = psutil.Process(process.pid), time.monotonic() + 60
        begin_s = seen.cpu_times().user
        meter = UsageMeter(process.pid)
        with meter.running():
            while seen.cpu_times().user < begin_s + used_s:
                assert time.monotonic() < end_s
        process.kill()
    return meter.figures()


def test_process_that_works_is_told_from_one_that_waits():
    busy, idle = measured(BUSY, used_s=0.3), measured(IDLE, used_s=0.0)
    assert busy["cpu_max_percent"] >= busy["cpu_percent"] > 0
    assert idle["cpu_percent"] < busy["cpu_percent"]
    assert busy["memory_mb"] - idle["memory_mb"] > 40  # 50 MB of zeros
    assert 0 <= busy["others_cpu_percent"] <= 100


def test_process_that_has_ended_gives_no_figures():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    meter = UsageMeter(process.pid)
    with meter.running():
        pass
    assert set(meter.figures().values()) == {None}
