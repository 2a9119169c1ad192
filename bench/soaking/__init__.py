"""The parts of L{bench.soak}: a proxy that reports, backends good and bad, and clients of every kind."""
