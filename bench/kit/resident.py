"""What the kernel says of a process's memory. Imports nothing else, so that peers can use it."""

from __future__ import annotations

from pathlib import Path

RESIDENT, PEAK = "VmRSS", "VmHWM"


def resident_mb(pid: int | str = "self", which: str = RESIDENT) -> float:
    """In MB of 10^6 bytes. `PEAK` is that of the program alone; `ru_maxrss` begins with that of its parent."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kib = next(int(line.split()[1]) for line in lines if line.startswith(f"{which}:"))
    return kib * 1024 / 1e6
