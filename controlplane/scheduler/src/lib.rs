//! The scheduler: schedule(pod, snapshot) is pure.
