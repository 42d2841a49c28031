"""What the device reaches: ceilings, the drift sentinel, the readings of `doctor`."""
