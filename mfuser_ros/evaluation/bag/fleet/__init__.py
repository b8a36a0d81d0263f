"""Many bags: worker processes on one machine, or actors on a Ray cluster; the results are those of one process."""
