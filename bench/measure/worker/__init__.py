"""The process that touches the device, and the protocol that the suite speaks with it."""
