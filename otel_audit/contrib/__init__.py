"""Things beside the trail that a request's scope makes easy. Nothing of otel-audit depends on them."""
