//! Tables that all nodes make alike from the same backends, and that change little when a backend comes or goes.
//!
//! Must not know: ids, maps. The method is that of the Maglev paper (Eisenbud et al., NSDI 2016, section 3.4): each backend has its
//! own order of preference over the places, made from its address and port, and they take turns, so that no share is larger than
//! another by more than one place. The size is a prime, one of few, so that it changes only when the number of backends doubles.
//! Most Services have few endpoints, and a place costs eight bytes: up to eight backends have about thirty places each (shares
//! differ by 3 % at most, and when one goes about a twentieth of the others' places change hands), more of them a hundred.

use std::net::IpAddr;

use crate::addr::Backend;

/// For up to so many backends, so many places; the last for any number.
const SIZES: [(usize, u32); 9] = [
    (2, 67),
    (4, 131),
    (8, 257),
    (20, 2039),
    (40, 4093),
    (81, 8191),
    (163, 16_381),
    (327, 32_749),
    (usize::MAX, 65_521),
];

/// How many places a table of so many backends has.
pub fn size(backends: usize) -> u32 {
    SIZES.iter().find(|(most, _)| backends <= *most).map_or(0, |(_, size)| *size)
}

/// A backend for each place, as its position in `backends`, which are ordered. None for no backends.
pub fn table(backends: &[Backend]) -> Vec<u32> {
    /// Nobody has the place yet.
    const FREE: u32 = u32::MAX;
    if backends.is_empty() {
        return Vec::new();
    }
    let size = size(backends.len());
    let mut table = vec![FREE; size as usize];
    let mut turns: Vec<(u32, u32)> = backends.iter().map(|backend| preference(backend, size)).collect();
    let mut left = size;
    loop {
        for (position, (place, step)) in (0u32..).zip(&mut turns) {
            while table[*place as usize] != FREE {
                *place = next(*place, *step, size);
            }
            table[*place as usize] = position;
            left -= 1;
            if left == 0 {
                return table;
            }
        }
    }
}

/// The next place in an order of preference; sums stay far below 32 bits.
fn next(place: u32, step: u32, size: u32) -> u32 {
    let next = place + step;
    if next >= size { next - size } else { next }
}

/// The place a backend likes best, and the step from each to the next.
fn preference(backend: &Backend, size: u32) -> (u32, u32) {
    let ip = match backend.ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let ip = u128::from_be_bytes(ip);
    let end = u64::from(backend.port) << 8 | u64::from(backend.protocol.number());
    let hash = mix(mix(mix(end) ^ low(ip)) ^ low(ip >> 64));
    let again = mix(hash ^ 0x5851_f42d_4c95_7f2d);
    (scale(hash, size), 1 + scale(again, size - 1))
}

fn low(ip: u128) -> u64 {
    // The lower half.
    (ip & u128::from(u64::MAX)) as u64
}

/// A hash as a number below a size.
fn scale(hash: u64, size: u32) -> u32 {
    // Below `size`, which has 32 bits.
    ((u128::from(hash) * u128::from(size)) >> 64) as u32
}

/// The finishing step of `SplitMix64`: every bit of the input reaches every bit of the output.
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests;
