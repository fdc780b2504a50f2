"""What a feature is: frozen values, rules of time, literals and keys. Pure: no I/O, no clock, no engine."""
