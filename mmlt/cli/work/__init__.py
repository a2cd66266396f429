"""What the larger verbs do: a module of the verb's name, imported once its command line is read."""
