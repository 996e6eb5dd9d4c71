//! The CNI plugin and pod network wiring.
