"""A site's ``cluster.toml``: what its administrator says of partitions, modules, networks and MPI, and what follows."""
