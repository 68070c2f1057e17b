"""Studies in virtual time: how long algorithms take to an accuracy on devices that differ."""
