"""The commands, one module for those that belong together. app.py imports a module when it is called."""
