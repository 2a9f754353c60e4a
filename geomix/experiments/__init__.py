"""Arms of a run: preparation, training, resume, and recording afterwards."""
