"""What runs on a compute node: from one ``srun`` task to a rank that trains and reports."""
