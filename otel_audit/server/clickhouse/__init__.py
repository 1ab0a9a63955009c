"""ClickHouse's HTTP interface out: what may be asked, and who asked it."""
