//! STATUS: whether ADD would work.

use crate::commands::Network;
use crate::spec::{Error, NOT_AVAILABLE};

pub(super) fn run(network: &Network) -> Result<(), Error> {
    if network.state().settings.ranges.is_empty() {
        return Err(Error::new(NOT_AVAILABLE, "the node has no pod address ranges yet"));
    }
    Ok(())
}
