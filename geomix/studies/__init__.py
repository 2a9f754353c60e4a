"""Many runs from one file, here or on a SLURM cluster."""
