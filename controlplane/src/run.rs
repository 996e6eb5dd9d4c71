//! The composition root: starts the parts in order, waits for the signal, ends them.

use anyhow::Result;

use crate::args::{Args, Command};
use crate::config::Config;
use crate::kubeconfig;

/// Does what the command line says.
pub fn main(args: Args) -> Result<()> {
    if let Some(Command::Kubeconfig(args)) = &args.command {
        return kubeconfig::run(args);
    }
    let _config = Config::new(args.serve)?;
    anyhow::bail!("serving is not wired up yet")
}
