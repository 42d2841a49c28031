"""Questions that are asked of results and calibrations.  No study imports another."""
