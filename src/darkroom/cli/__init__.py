"""The command line, a file a group of commands. What one needs is imported when it runs, so that help is quick."""
