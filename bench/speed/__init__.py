"""What `bench.compare` is made of: an upstream, a load, a meter, the targets, and the table."""
