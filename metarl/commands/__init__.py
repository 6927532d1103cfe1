"""Commands of the command line that have a module of their own, imported when they are asked for."""
