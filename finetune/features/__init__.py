"""From pictures to rows: the cache, its store, and what computes a row that is not there."""
