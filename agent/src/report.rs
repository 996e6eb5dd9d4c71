//! OUT: tells the API server what is. Compares before it writes; one writer per object.

pub mod events;
