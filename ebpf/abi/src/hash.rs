//! The hash that spreads flows over backends: the same in every program and in user space, so that all nodes choose alike and a
//! trace can say what a program would choose.
//!
//! Must not know: what is chosen.

use crate::{Address, FlowTuple};

/// One round over a word; multiplications by odd constants, so that each input bit reaches the high bits.
#[inline(always)]
const fn mix(state: u32, word: u32) -> u32 {
    (state ^ word).wrapping_mul(0x9e37_79b1).rotate_left(15)
}

/// Spreads what the rounds have gathered over all bits.
#[inline(always)]
const fn finish(mut state: u32) -> u32 {
    state ^= state >> 16;
    state = state.wrapping_mul(0x85eb_ca6b);
    state ^= state >> 13;
    state = state.wrapping_mul(0xc2b2_ae35);
    state ^ (state >> 16)
}

#[inline(always)]
const fn address(state: u32, address: &Address) -> u32 {
    let words = &address.words;
    mix(mix(mix(mix(state, words[0]), words[1]), words[2]), words[3])
}

/// The hash of a flow.
#[inline(always)]
pub const fn flow_hash(tuple: &FlowTuple) -> u32 {
    let ports = (tuple.source_port.0 as u32) << 16 | tuple.destination_port.0 as u32;
    let state = address(address(tuple.protocol as u32, &tuple.source), &tuple.destination);
    finish(mix(state, ports))
}

/// The hash of a client, for Services whose clients stay with their endpoint.
#[inline(always)]
pub const fn client_hash(client: &Address) -> u32 {
    finish(address(0, client))
}

/// The place of a hash in a table of so many places.
#[inline(always)]
pub const fn place(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Port;

    #[test]
    fn neighbouring_flows_spread_evenly() {
        let mut seen = [0u32; 16];
        for host in 0..64u8 {
            for port in 0..256u16 {
                let tuple = FlowTuple {
                    source: Address::from_v4_word(u32::from_ne_bytes([10, 0, 0, host])),
                    destination: Address::from_v4_word(u32::from_ne_bytes([10, 96, 0, 1])),
                    source_port: Port::new(32_768 + port),
                    destination_port: Port::new(80),
                    protocol: 6,
                    reserved: [0; 3],
                };
                seen[place(flow_hash(&tuple), 16) as usize] += 1;
            }
        }
        // 1024 expected; six standard deviations are about 186.
        assert!(seen.iter().all(|count| (838..1210).contains(count)), "{seen:?}");
    }

    #[test]
    fn clients_spread_evenly() {
        let mut seen = [0u32; 8];
        for host in 0..8000u32 {
            let client = Address::from_v4_word((0x0a00_0000 + host).to_be());
            seen[place(client_hash(&client), 8) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (820..1180).contains(count)), "{seen:?}");
    }
}
