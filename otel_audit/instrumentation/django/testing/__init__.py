"""Tests of applications: kept out of the trail, and compared with what reached the database."""
