//! Volumes: what a pod needs of the API server ([`needs`]) and the files that follow from it ([`payload`]).
//! Must not touch a file system.

pub mod needs;
pub mod payload;
