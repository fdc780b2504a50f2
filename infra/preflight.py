"""Checks a machine before anything is installed: Python, Java, disk, memory. Any Python runs it, without packages."""

import os
import re
import shutil
import subprocess
import sys

PYTHON = (3, 11)
JAVA = 17
DISK_GIB = 6
MEMORY_GIB = 7.5


def problems():
    """What is missing, each with the command that mends it."""
    if sys.version_info[:2] != PYTHON:
        found = ".".join(str(part) for part in sys.version_info[:2])
        yield f"This is Python {found}; Flink and Spark need 3.11.", "apt-get install python3.11 python3.11-venv"
    version = java_version()
    if version < JAVA:
        what = f"Java {version}" if version else "no Java"
        yield f"There is {what} here; Kafka, Flink and Spark need {JAVA}.", "apt-get install openjdk-17-jre-headless"
    free = shutil.disk_usage(".").free / 2**30
    if free < DISK_GIB:
        yield f"{free:.1f} GiB of disk are free here; set-up and demo need {DISK_GIB}.", "make distclean, or move"
    memory = memory_gib()
    if memory and memory < MEMORY_GIB:
        yield f"This machine has {memory:.1f} GiB of memory; the stack and Spark need {MEMORY_GIB}.", "use a larger one"


def java_version():
    """The major version of $JAVA_HOME/bin/java or of the java on the path; 0 where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = f"{home}/bin/java" if home else "java"
    try:
        said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match.group(1)) if match else 0


def memory_gib():
    """Memory of the machine; 0 where it cannot be told."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0


if __name__ == "__main__":
    found = list(problems())
    for reason, instruction in found:
        print(f"preflight: {reason}\n  -> {instruction}", file=sys.stderr)
    sys.exit(2 if found else 0)
