"""The commands, one file per help panel: a few lines each, the work in a module they import."""
