//! Door of the binary.
fn main() {}
