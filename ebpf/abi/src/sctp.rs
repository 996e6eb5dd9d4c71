//! The checksum of SCTP packets whose ports are replaced, without a look at what they carry.
//!
//! Must not know: where the ports lie, who replaces them.
//!
//! SCTP has CRC-32C (RFC 9260, appendix A), which is linear: changing some bits of a packet changes its checksum by the checksum of
//! those bits alone, and zeros behind them only multiply it by a power of `x`. So a change of the four bytes of the ports, which a
//! packet of `length` bytes begins with, changes the checksum by `change * x^(8 * length)` modulo the polynomial.

/// The polynomial of CRC-32C, lowest power in the highest bit, as all numbers here are.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `1`.
const ONE: u32 = 1 << 31;

/// `x * a`.
#[inline(always)]
const fn times_x(a: u32) -> u32 {
    (a >> 1) ^ (POLYNOMIAL & (a & 1).wrapping_neg())
}

/// `a * b`: no branches, so that the verifier has one path to walk.
#[inline(always)]
const fn multiply(a: u32, b: u32) -> u32 {
    let (mut a, mut b) = (a, b);
    let mut product = 0;
    let mut bit = 0;
    while bit < 32 {
        product ^= b & (a >> 31).wrapping_neg();
        a <<= 1;
        b = times_x(b);
        bit += 1;
    }
    product
}

/// The powers of a number: its place `n` has `base^n`.
const fn powers(base: u32) -> [u32; 256] {
    let mut table = [ONE; 256];
    let mut n = 1;
    while n < table.len() {
        table[n] = multiply(table[n - 1], base);
        n += 1;
    }
    table
}

/// `x^(8 * n)`.
static BYTES: [u32; 256] = powers(ONE >> 8);

/// `x^(8 * 256 * n)`.
static PAGES: [u32; 256] = powers(multiply(powers(ONE >> 8)[255], ONE >> 8));

/// What the checksum of an SCTP packet of `length` bytes (its header included) changes by, to be combined with it by exclusive or,
/// if the word of its ports changes by `change` (the exclusive or of the old and the new one). All words as they lie in memory.
#[inline(always)]
pub fn sctp_checksum_change(change: u32, length: u32) -> u32 {
    let bytes = BYTES[(length & 0xff) as usize];
    let pages = PAGES[(length >> 8 & 0xff) as usize];
    multiply(multiply(u32::from_le(change), bytes), pages).to_le()
}

/// The checksum of an SCTP packet of these words, as they lie in memory; the place of the checksum itself, the third, must be 0.
#[inline(always)]
pub fn sctp_checksum<const WORDS: usize>(words: &[u32; WORDS]) -> u32 {
    let mut state = u32::MAX;
    let mut at = 0;
    while at < WORDS {
        // Dividing by the polynomial is multiplying by x^32.
        state = multiply(state ^ u32::from_le(words[at]), BYTES[4]);
        at += 1;
    }
    (!state).to_le()
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use super::*;

    /// The checksum, bit by bit, as the specification has it: the packet's own checksum counts as zeros.
    fn checksum(packet: &[u8]) -> u32 {
        let mut state = u32::MAX;
        for (at, byte) in packet.iter().enumerate() {
            state ^= if (8..12).contains(&at) { 0 } else { u32::from(*byte) };
            for _ in 0..8 {
                state = times_x(state);
            }
        }
        (!state).to_le()
    }

    /// xorshift64: any numbers, the same in every run.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    fn word(packet: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]])
    }

    /// Replaces the ports of a packet and mends its checksum as the programs do it; it must be what it would be if computed anew.
    fn check(packet: &mut [u8], ports: u32) {
        let correct = checksum(packet);
        let change = word(packet, 0) ^ ports;
        packet[..4].copy_from_slice(&ports.to_ne_bytes());
        let length = packet.len();
        let mended = correct ^ sctp_checksum_change(change, length as u32);
        assert_eq!(mended, checksum(packet), "length {length}, ports {ports:08x}");
    }

    #[test]
    fn known_value() {
        let mut state = u32::MAX;
        for byte in b"123456789" {
            state = (0..8).fold(state ^ u32::from(*byte), |state, _| times_x(state));
        }
        assert_eq!(!state, 0xe306_9283);
    }

    #[test]
    fn whole_packets() {
        let mut state = 0x5eed;
        for _ in 0..1000 {
            let mut words: [u32; 5] = core::array::from_fn(|_| next(&mut state) as u32);
            words[2] = 0;
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            assert_eq!(sctp_checksum(&words), checksum(&bytes));
        }
    }

    #[test]
    fn random_packets() {
        let mut state = 0x5eed_5eed_5eed_5eed;
        for round in 0..20_000 {
            // Every length up to 1500 comes, and some up to the largest.
            let length = if round % 500 == 0 { 12 + next(&mut state) % 65_500 } else { 12 + round % 1489 };
            let mut packet: Vec<u8> = (0..length).map(|_| next(&mut state) as u8).collect();
            check(&mut packet, next(&mut state) as u32);
        }
    }

    #[test]
    fn edges() {
        for length in [12, 255, 256, 257, 511, 512, 65_280, 65_535] {
            for ports in [0, 1, 0x8000_0000, 0xffff_ffff, 0x0000_ffff, 0xffff_0000] {
                check(&mut std::vec![0xa5; length], ports);
            }
        }
    }
}
