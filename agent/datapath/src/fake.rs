//! A recorder in the place of the kernel's tables: keeps what was asked, in order, and what the maps would hold.
//!
//! Must not know: bpf(2).

use pagurus_agent_core::services::plan::{Capacity, MapOp, Observed, Table};

use crate::services::{MapError, ServiceMaps};

/// Records operations; can be told to fail.
#[derive(Debug)]
pub struct Recorder {
    /// Every operation carried out, in order.
    pub ops: Vec<MapOp>,
    /// Operations to carry out before the next ones fail, if any are to fail.
    pub fail_after: Option<usize>,
    contents: Table,
}

impl Default for Recorder {
    fn default() -> Self {
        let capacity = Capacity { services: usize::MAX, slots: usize::MAX, backends: usize::MAX };
        Self { ops: Vec::new(), fail_after: None, contents: Table::new(&Observed::default(), capacity) }
    }
}

impl ServiceMaps for Recorder {
    fn observe(&mut self) -> Result<Observed, MapError> {
        Ok(self.contents.mirror().contents())
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), MapError> {
        match &mut self.fail_after {
            Some(0) => {
                let error = std::io::Error::from_raw_os_error(libc::E2BIG);
                return Err(MapError::new("write", "FAKE", error.into()));
            }
            Some(left) => *left -= 1,
            None => {}
        }
        self.contents.record(op);
        self.ops.push(op.clone());
        Ok(())
    }
}
