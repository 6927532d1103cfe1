"""The command line: `app` dispatches, every command is a module of its own, imported when it is called."""
