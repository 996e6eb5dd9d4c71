//! The kernel side of the agent: loads the BPF programs and owns their maps.
