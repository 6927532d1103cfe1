"""Faults of actuators, joints and sensors that tasks of any family may have."""
