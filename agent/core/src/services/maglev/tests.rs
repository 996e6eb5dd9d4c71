//! Maglev tables: even, alike for everybody, stable.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::addr::Protocol;

fn backends(hosts: impl Iterator<Item = u32>) -> Vec<Backend> {
    let mut all: Vec<Backend> = hosts
        .map(|host| Backend {
            ip: IpAddr::from((0x0a00_0000 + host).to_be_bytes()),
            port: 8080,
            protocol: Protocol::Tcp,
        })
        .collect();
    all.sort_unstable();
    all
}

/// Which backend has each place.
fn owners(backends: &[Backend]) -> Vec<Backend> {
    table(backends).into_iter().map(|place| backends[place as usize]).collect()
}

#[test]
fn sizes() {
    for (backends, expected) in
        [(1, 67), (2, 67), (3, 131), (8, 257), (9, 2039), (100, 16_381), (655, 65_521), (10_000, 65_521)]
    {
        assert_eq!(size(backends), expected);
    }
    for (_, size) in SIZES {
        assert!((2..size).take_while(|d| d * d <= size).all(|d| size % d != 0), "{size} is no prime");
    }
    assert!(table(&[]).is_empty());
}

#[test]
fn places_are_shared_evenly() {
    for count in [1, 2, 3, 10, 100, 1000] {
        let owners = owners(&backends(1..=count));
        let mut shares: HashMap<Backend, usize> = HashMap::new();
        for owner in &owners {
            *shares.entry(*owner).or_default() += 1;
        }
        assert_eq!(shares.len(), count as usize, "everybody has a share");
        let (least, most) = (shares.values().min().unwrap(), shares.values().max().unwrap());
        assert!(most - least <= 1, "{count}: {least}..{most}");
    }
}

#[test]
fn the_same_on_every_node_and_in_every_release() {
    let sum = table(&backends(1..=5)).iter().fold(0u64, |sum, place| mix(sum ^ u64::from(*place)));
    assert_eq!(
        sum, 5_180_741_196_120_967_594,
        "a change of this is a change of what nodes of different releases choose"
    );
}

proptest! {
    #[test]
    fn little_changes_when_one_goes(hosts in prop::collection::btree_set(1u32..5000, 3..120), gone in any::<prop::sample::Index>()) {
        let all = backends(hosts.iter().copied());
        let gone = all[gone.index(all.len())];
        let rest: Vec<Backend> = all.iter().copied().filter(|backend| *backend != gone).collect();
        prop_assume!(size(all.len()) == size(rest.len()));
        let (before, after) = (owners(&all), owners(&rest));
        let moved = before.iter().zip(&after).filter(|(old, new)| old != new && **old != gone).count();
        // Places of others that change hands: few against the table.
        let most = if all.len() > 8 { 10 } else { 4 };
        prop_assert!(moved * most <= before.len(), "{moved} of {}", before.len());
    }
}

#[test]
fn few_backends_keep_their_places_on_the_whole() {
    for count in [4, 7, 8] {
        let (mut moved, mut places) = (0, 0);
        for turn in 0..100u32 {
            let all = backends((0..count).map(|host| 1 + turn * 31 + host * 7));
            let gone = all[(turn % count) as usize];
            let rest: Vec<Backend> = all.iter().copied().filter(|backend| *backend != gone).collect();
            let (before, after) = (owners(&all), owners(&rest));
            assert_eq!(before.len(), after.len(), "the same size for one less");
            moved += before.iter().zip(&after).filter(|(old, new)| old != new && **old != gone).count();
            places += before.len();
        }
        assert!(moved * 100 <= places * 7, "{count}: {moved} of {places}");
    }
}
