//! A recorder in the place of the kernel's tables: keeps what was asked, in order, and what the maps would hold.
//!
//! Must not know: bpf(2).

use pagurus_agent_core::services::plan::memory::Memory;
use pagurus_agent_core::services::plan::{Capacity, MapOp, Observed};

use crate::services::{Failed, MapError, ServiceMaps};

/// Records operations; can be told to fail.
#[derive(Debug)]
pub struct Recorder {
    /// Every operation carried out, in order.
    pub ops: Vec<MapOp>,
    /// Operations to carry out before the next ones fail, if any are to fail.
    pub fail_after: Option<usize>,
    /// What the maps would hold.
    pub memory: Memory,
}

impl Default for Recorder {
    fn default() -> Self {
        let room = Capacity { services: 1024, slots: 1024, backends: 1024, numbers: 1024 };
        Self { ops: Vec::new(), fail_after: None, memory: Memory::new(room) }
    }
}

impl ServiceMaps for Recorder {
    fn observe(&mut self) -> Result<Observed, MapError> {
        Ok(self.memory.observed())
    }

    fn apply(&mut self, ops: &[MapOp]) -> Result<(), Failed> {
        for (done, op) in ops.iter().enumerate() {
            let failed = |error: Box<dyn std::error::Error + Send + Sync>| Failed {
                done,
                error: MapError::new("write", "FAKE", error),
            };
            match &mut self.fail_after {
                Some(0) => return Err(failed(std::io::Error::from_raw_os_error(libc::E2BIG).into())),
                Some(left) => *left -= 1,
                None => {}
            }
            self.memory.apply(op).map_err(|error| failed(error.into()))?;
            self.ops.push(op.clone());
        }
        Ok(())
    }
}
