//! The four algorithms as small pure values. They must not know peers, counters or confirmations.
