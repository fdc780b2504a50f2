"""The local stack: a broker, a Redis and a Flink cluster as supervised child processes. It knows addresses and
processes, no features."""
