//! How much of what all clients share one of them may have.
//!
//! Must not know: of what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// Shares by client. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    most: usize,
}

/// A share, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// So many shares for each.
    pub(super) fn new(most: usize) -> Self {
        Self { taken: Arc::default(), most }
    }

    /// One more for this client, if it may have it.
    pub(super) fn enter(&self, client: IpAddr) -> Option<Share> {
        let mut taken = self.taken.lock();
        let count = taken.entry(client).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Share { clients: self.clone(), client })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.clients.taken.lock();
        if let Some(count) = taken.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_client_leaves_room_for_others() {
        let clients = Clients::new(2);
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held: Vec<_> = [clients.enter(a), clients.enter(a)].into_iter().flatten().collect();
        assert_eq!(held.len(), 2);
        assert!(clients.enter(a).is_none());
        assert!(clients.enter(b).is_some());
        drop(held);
        assert!(clients.enter(a).is_some());
        assert!(clients.taken.lock().is_empty(), "nobody is remembered for nothing");
    }
}
