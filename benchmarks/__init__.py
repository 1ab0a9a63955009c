"""What otel-audit costs and carries: `make bench`. Each module measures one thing in a process of its own."""
