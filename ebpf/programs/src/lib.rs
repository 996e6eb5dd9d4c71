//! Empty: cargo needs a target here so that other crates can see when the programs change.
#![no_std]
