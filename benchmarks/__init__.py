"""What an edit costs, ours and the reference pipeline's: `make bench`."""
