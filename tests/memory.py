"""What a program of a test begins with that watches its own memory."""

WATCH = """
import threading, time
from pathlib import Path

def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(x.split()[1]) * 1024 for x in lines if x.startswith("RssAnon"))

def watch():
    global most
    while True:
        most = max(most, own())
        time.sleep(0.002)
"""
"""Defines ``own``, bytes of memory that are no file's, and ``watch``, which keeps their maximum in
``most`` while it runs."""
