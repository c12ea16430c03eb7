//! Guarded file mapping and prefetch.
