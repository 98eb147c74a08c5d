"""The guarded fetcher: brings files from addresses that strangers chose."""
