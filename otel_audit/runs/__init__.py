"""Commands, jobs and tasks while they run: what they print, how they end, and the records of it."""
