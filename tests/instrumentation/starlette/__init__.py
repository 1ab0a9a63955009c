"""Starlette and FastAPI, instrumented for real."""
