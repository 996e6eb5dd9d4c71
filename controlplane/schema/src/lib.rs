//! The type table of the Kubernetes API and everything that follows from it.
