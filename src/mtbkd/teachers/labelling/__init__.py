"""Many examples labelled by a teacher: shards that resume, asking, loading, on a cluster."""
