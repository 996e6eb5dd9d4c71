//! Small BPF programs of the bench itself: they give each run of a program another packet, by rewriting a few fields from a number and
//! going on into the program. What they cost themselves is measured and taken off.
//!
//! Must not know: the programs that are measured.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use anyhow::{Result, ensure};
use pagurus_tests::bpf::register::{R0, R1, R2, R3, R4, R5, R6, R7, R10};
use pagurus_tests::bpf::{ARRAY, AT_XDP, Code, DEVMAP, Kind, PROG_ARRAY, attach, create_map, load, put};
use pagurus_tests::test_run::{send, timed};

/// How the packets of a series differ: by a number, which is added to addresses. IPv4 with a header of 20 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Vary {
    /// Source address of number 0.
    pub source: [u8; 4],
    /// So many bits of the number are added to the source.
    pub source_bits: u32,
    /// Destination address of number 0.
    pub destination: [u8; 4],
    /// So many bits of the number are added to the destination.
    pub destination_bits: u32,
    /// Source and destination port.
    pub ports: [u16; 2],
    /// Numbers come one after the other instead of at random.
    pub in_order: bool,
}

/// Ethernet addresses that each packet gets again, because programs change them.
pub type Macs = [[u8; 6]; 2];

impl Vary {
    /// The instructions that leave the packet's number in register 7 and the rewritten packet, and jump by `failed` of the
    /// instructions that follow if it is too short.
    fn code(&self, kind: Kind, counter: &OwnedFd, macs: &Macs) -> Code {
        let mut code = Code::default();
        code.mov(R6, R1).mov_value(R7, 0);
        if self.in_order {
            // The number is counted in a map of our own; nobody else runs this.
            code.store32_value(R10, -4, 0).mov(R2, R10).add_value(R2, -4).map(R1, counter.as_fd()).call(1);
            code.jump_if_zero(R0, 4);
            code.load32(R7, R0, 0).mov(R1, R7).add32_value(R1, 1).store32(R0, 0, R1);
        } else {
            code.call(7).mov(R7, R0);
        }
        let (start, end) = kind.packet();
        code.load32(R2, R6, start).load32(R3, R6, end).mov(R4, R2).add_value(R4, 38);
        let mut body = Code::default();
        let words: Vec<u32> = [macs[1], macs[0]]
            .concat()
            .chunks(4)
            .map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
            .collect();
        for (place, word) in words.into_iter().enumerate() {
            body.store32_value(R2, place as i16 * 4, word);
        }
        body.store8_value(R2, 22, 64);
        for (at, base, bits) in
            [(26, self.source, self.source_bits), (30, self.destination, self.destination_bits)]
        {
            body.mov(R5, R7).and_value(R5, ((1u64 << bits) - 1) as u32);
            body.add32_value(R5, u32::from_be_bytes(base)).big_endian32(R5).store32(R2, at, R5);
        }
        let [a, b] = self.ports.map(u16::to_be_bytes);
        body.store32_value(R2, 34, u32::from_ne_bytes([a[0], a[1], b[0], b[1]]));
        code.jump_if_greater(R4, R3, body.0.len() as i16);
        code.0.extend(body.0);
        code
    }
}

/// A program that varies its packet and goes on into another one.
pub struct Varied {
    program: OwnedFd,
    next: OwnedFd,
    counter: OwnedFd,
    kind: Kind,
    ifindex: u32,
}

impl Varied {
    /// Made for a kind of programs; packets come to the loopback device.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn new(kind: Kind, vary: &Vary, macs: &Macs) -> Result<Self> {
        Self::at(0, kind, vary, macs)
    }

    /// As [`new`](Self::new); packets for a driver come to this device of the namespace in which it is run.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn at(ifindex: u32, kind: Kind, vary: &Vary, macs: &Macs) -> Result<Self> {
        let (next, counter) = (create_map(PROG_ARRAY)?, create_map(ARRAY)?);
        let mut code = vary.code(kind, &counter, macs);
        code.mov(R1, R6).map(R2, next.as_fd()).mov_value(R3, 0).call(12).mov_value(R0, 1).exit();
        Ok(Self { program: load(kind, &code)?, next, counter, kind, ifindex })
    }

    /// Nanoseconds of one run of a program with varied packets, without what varying them costs.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn measure(&self, target: BorrowedFd<'_>, packet: &[u8], repeat: u32) -> Result<f64> {
        let nothing = drop_everything(self.kind)?;
        put(&self.next, nothing.as_raw_fd() as u32)?;
        let own = self.run(packet, repeat)?.0;
        put(&self.next, target.as_raw_fd() as u32)?;
        let both = self.run(packet, repeat)?.0;
        Ok(f64::from(both) - f64::from(own))
    }

    /// Nanoseconds of a run, and what the last one returned.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn run(&self, packet: &[u8], repeat: u32) -> Result<(u32, u32)> {
        put(&self.counter, 0)?;
        timed(self.program.as_fd(), self.ifindex, packet, repeat)
    }
}

impl Varied {
    /// What the program that follows is.
    ///
    /// # Errors
    /// The kernel refuses it: a program of another kind.
    pub fn lead_to(&self, target: BorrowedFd<'_>) -> Result<()> {
        put(&self.next, target.as_raw_fd() as u32)
    }
}

/// Packets that a device sends, at the rate at which everything behind it takes them.
pub struct Generator {
    program: OwnedFd,
    _device: OwnedFd,
    _counter: OwnedFd,
}

impl Generator {
    /// For a device of the calling thread's namespace.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn new(ifindex: u32, vary: &Vary, macs: &Macs) -> Result<Self> {
        let (device, counter) = (create_map(DEVMAP)?, create_map(ARRAY)?);
        put(&device, ifindex)?;
        let mut code = vary.code(Kind::Xdp, &counter, macs);
        code.map(R1, device.as_fd()).mov_value(R2, 0).mov_value(R3, 0).call(51).exit();
        Ok(Self { program: load(Kind::Xdp, &code)?, _device: device, _counter: counter })
    }

    /// Sends so many packets; packets per second.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn send(&self, packet: &[u8], count: u32) -> Result<f64> {
        ensure!(count > 0, "no packets");
        let start = std::time::Instant::now();
        send(self.program.as_fd(), packet, count)?;
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}

/// A program at a device's driver that drops or passes everything: it goes with its link.
///
/// # Errors
/// The kernel refuses it.
pub fn attach_verdict(ifindex: u32, verdict: i32) -> Result<OwnedFd> {
    let mut code = Code::default();
    code.mov_value(R0, verdict).exit();
    attach(&load(Kind::Xdp, &code)?, ifindex, AT_XDP)
}

/// A program that does nothing: its packets are dropped.
///
/// # Errors
/// The kernel refuses it.
pub fn drop_everything(kind: Kind) -> Result<OwnedFd> {
    let mut code = Code::default();
    code.mov_value(R0, if kind == Kind::Xdp { 1 } else { 2 }).exit();
    load(kind, &code)
}
