"""gunicorn loads the shop once and forks: each worker must speak for itself."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.e2e.browser import logged_in
from tests.e2e.running import prepared_shop, running_store


def test_workers_forked_after_the_start_have_streams_of_their_own(tmp_path: Path) -> None:
    """With ``--preload`` every record arrives once, and every stream counts from 1 without a gap."""
    with running_store(tmp_path) as store, prepared_shop(tmp_path, store.sink) as shop:
        shop.start("gunicorn", "--preload")
        numbers = []
        # Each login is a connection of its own, so that both workers get some.
        for _ in range(12):
            with logged_in("ana", shop.url) as ana:
                numbers.append(ana.buy(cape_rooibos=1))
        shop.stop()
        shop.drain()

        orders = store.records(target_type="shop.Order", action="CREATE")
        assert sorted(record.target.id for record in orders if record.target) == sorted(map(str, numbers))
        streams: dict[str, list[int]] = defaultdict(list)
        for record in store.records():
            assert record.sequence is not None
            streams[record.sequence.stream].append(record.sequence.number)
        assert {record.sequence.stream for record in orders if record.sequence} <= set(streams)
        assert len({record.sequence.stream for record in orders if record.sequence}) == 2
        for stream, sequence in streams.items():
            assert sorted(sequence) == list(range(1, len(sequence) + 1)), stream
