//! The contract between BPF programs and user space.
