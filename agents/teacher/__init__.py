"""What agents share that are trained with privileged values and act without them."""
