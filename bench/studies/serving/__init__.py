"""A queue of requests on measured batch times."""
