"""The contract suite: cases as data, a generator of more, one adapter per engine, and mutations that it must catch."""
