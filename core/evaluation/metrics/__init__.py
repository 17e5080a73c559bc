"""One file a metric: what it means, its arithmetic, and what it declares. A new file here is a new metric."""
