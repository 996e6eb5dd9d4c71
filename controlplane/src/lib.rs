//! The control plane binary: API server, scheduler and controllers in one process.
