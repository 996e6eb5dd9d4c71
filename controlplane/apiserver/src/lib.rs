//! The API server: one object engine for every kind.
