//! The table of flows that XDP has at hand: until when it is believed, and how full it is: estimated, for the programs keep no count of it
//! and nobody ever empties it.
//!
//! Must not know: who asks.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pagurus_ebpf_abi::{WARM_BELIEVED, WARM_V6, WarmBucket, maps};

use crate::memory::Shared;
use crate::services::MapError;
use crate::sys;

/// So many buckets are looked at, of all CPUs together, and at least so many of each.
const SAMPLE: u32 = 1024;
const SAMPLE_OF_ONE: u32 = 16;
/// Some flow is noted again within this time, if there are any.
const NOTED: Duration = Duration::from_secs(6);

/// How often something was taken back that packets are sent by: backends, frontends, ranges of clients, routes. XDP believes nothing that
/// it noted of a flow before the last time.
#[derive(Clone, Debug)]
pub(crate) struct TakenBack(Arc<Shared>);

impl TakenBack {
    pub(crate) fn open(map: BorrowedFd<'_>) -> Result<Self, MapError> {
        let memory = Shared::map(map, 1, size_of::<u32>());
        memory
            .map(|memory| Self(Arc::new(memory)))
            .map_err(|error| MapError::new("map", maps::TAKEN_BACK, error))
    }

    /// Once more, when what was taken back is no longer there to be found.
    pub(crate) fn raise(&self) {
        self.0.raise(0);
    }
}

/// The table, to be looked at now and then.
#[derive(Debug)]
pub struct Warm {
    map: OwnedFd,
    cpus: u32,
    /// Buckets of each CPU.
    buckets: u32,
    last: Mutex<Option<Seen>>,
}

/// When the newest flow of a look had been noted, on the clock of flows, and since when no newer one was seen.
#[derive(Clone, Copy, Debug)]
struct Seen {
    newest: u32,
    since: Instant,
    place: u32,
}

impl Warm {
    pub(crate) fn new(map: OwnedFd, cpus: u32, buckets: u32) -> Self {
        Self { map, cpus, buckets, last: Mutex::new(None) }
    }

    /// Flows there is room for.
    pub fn capacity(&self) -> u64 {
        u64::from(self.cpus) * u64::from(self.buckets) * 2
    }

    /// The share of it that flows of the last second or so have, about, by a small part of the table.
    pub fn fill(&self) -> Result<f64, MapError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let each = (SAMPLE / self.cpus.max(1)).max(SAMPLE_OF_ONE).min(self.buckets);
        // Another part each time; flows are spread evenly.
        let first = last.map_or(0, |seen| seen.place);
        let mut buckets = Vec::with_capacity((each * self.cpus) as usize);
        for cpu in 0..self.cpus {
            for offset in 0..each {
                let place = cpu * self.buckets + (first.wrapping_add(offset) & (self.buckets - 1));
                let bucket: Option<WarmBucket> = sys::look_up(self.map.as_fd(), &place)
                    .map_err(|error| MapError::new("read", maps::WARM, error))?;
                buckets.extend(bucket);
            }
        }
        let newest = buckets.iter().flat_map(stamps).map(|(stamp, _)| stamp).max();
        let (newest, place) = (newest.unwrap_or(0), first.wrapping_add(each));
        let since = last.filter(|seen| seen.newest == newest).map_or_else(Instant::now, |seen| seen.since);
        *last = Some(Seen { newest, since, place });
        Ok(if since.elapsed() > NOTED { 0.0 } else { share(&buckets, newest) })
    }
}

/// The flows in a bucket: when each was noted, and how many places it takes.
fn stamps(bucket: &WarmBucket) -> impl Iterator<Item = (u32, u32)> {
    let [first, second] = &bucket.flows;
    let alone = first.protocol >= WARM_V6;
    let first = (first.protocol != 0).then_some((first.stamp, if alone { 2 } else { 1 }));
    let second = (second.protocol != 0 && !alone).then_some((second.stamp, 1));
    first.into_iter().chain(second)
}

/// The share of places with flows that were noted at that time, or so short a time before that they may be believed.
fn share(buckets: &[WarmBucket], newest: u32) -> f64 {
    let fresh =
        buckets.iter().flat_map(stamps).filter(|(stamp, _)| newest.wrapping_sub(*stamp) <= WARM_BELIEVED);
    let used: u32 = fresh.map(|(_, places)| places).sum();
    f64::from(used) / (buckets.len().max(1) as f64 * 2.0)
}

#[cfg(test)]
mod tests {
    use pagurus_ebpf_abi::{WARM_V6_REPLY, WarmFlow};

    use super::*;

    #[test]
    fn shares() {
        let flow = |protocol, stamp| WarmFlow { protocol, stamp, ..WarmFlow::default() };
        let (none, tcp) = (WarmFlow::default(), |stamp| flow(6, stamp));
        let check = |flows: &[[WarmFlow; 2]], expected: f64| {
            let buckets: Vec<_> = flows.iter().map(|flows| WarmBucket { flows: *flows }).collect();
            let newest = buckets.iter().flat_map(stamps).map(|(stamp, _)| stamp).max().unwrap_or(0);
            assert!((share(&buckets, newest) - expected).abs() < 1e-9, "{flows:?}");
        };
        check(&[], 0.0);
        check(&[[none, none]], 0.0);
        check(&[[tcp(9), none], [none, none]], 0.25);
        check(&[[tcp(29), tcp(13)], [tcp(12), none]], 0.5);
        // One of IPv6 takes the whole bucket; what lies in the second half are its addresses.
        check(&[[flow(WARM_V6_REPLY, 39), flow(17, 1)], [none, none]], 0.5);
    }
}
