"""RMA and its one-stage form, with their network and settings."""
