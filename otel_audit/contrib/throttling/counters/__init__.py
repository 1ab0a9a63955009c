"""What counts: this process, Redis, or Django's cache. All of them by one algorithm, ``windows.py``."""
