//! End-to-end and integration suites; they need root and a kernel.
