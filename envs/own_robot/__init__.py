"""One's own robot, from MJCF, URDF or a function."""
