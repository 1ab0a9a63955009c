"""The demo in parts: what it runs, whom it plays, the story, and what must be on record after."""
