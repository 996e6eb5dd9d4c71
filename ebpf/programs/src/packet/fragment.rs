//! Datagrams that come in fragments: only the first one has the ports.
//!
//! Must not know: what the ports are for.

use crate::work::Parsed;

/// Notes the ports of a first fragment. False: they could not be noted.
#[inline(always)]
pub(crate) fn note(_parsed: &Parsed) -> bool {
    true
}

/// Puts the ports into the tuple of a later fragment, and says so in its flags. False: the first one was not seen.
#[inline(always)]
pub(crate) fn ports(_parsed: &mut Parsed) -> bool {
    false
}
