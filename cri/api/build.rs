//! Compiles `proto/runtime.proto` without any tool that is not a crate.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto/runtime.proto");
    let files = protox::compile(["runtime.proto"], ["proto"])?;
    tonic_prost_build::configure().btree_map(".").compile_fds(files)?;
    Ok(())
}
