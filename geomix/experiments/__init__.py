"""Arms of a run: prepared, trained, resumed, and recorded afterwards."""
