"""OTLP in: by HTTP and gRPC, decoded, held to limits, turned into rows."""
