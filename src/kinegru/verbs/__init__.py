"""What `kinegru VERB` does: one module a verb, with the verb as a function and `show`, which prints its result."""
