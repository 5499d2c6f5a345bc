"""Each framework drives its own handlers, which are decorated and know of nothing else."""
