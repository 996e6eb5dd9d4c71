//! Small BPF programs of the bench itself, written as instructions: they give each run of a program another packet, by rewriting a few
//! fields from a number and going on into the program. What they cost themselves is measured and taken off.
//!
//! Must not know: the programs that are measured.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, ensure};
use nix::libc;

/// Kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the traffic control, at the ingress of a device.
    Tc,
    /// Of a driver.
    Xdp,
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Tc => 3,
            Self::Xdp => 6,
        }
    }

    /// Where the context holds the beginning and the end of the packet.
    fn packet(self) -> (i16, i16) {
        match self {
            Self::Tc => (76, 80),
            Self::Xdp => (0, 4),
        }
    }
}

/// Commands of bpf(2).
mod command {
    pub const MAP_CREATE: libc::c_long = 0;
    pub const MAP_UPDATE: libc::c_long = 2;
    pub const PROG_LOAD: libc::c_long = 5;
    pub const TEST_RUN: libc::c_long = 10;
    pub const LINK_CREATE: libc::c_long = 28;
    use nix::libc;
}

/// Types of maps.
const PROG_ARRAY: u32 = 3;
const ARRAY: u32 = 2;
const DEVMAP: u32 = 14;
/// Attaching at the driver.
const AT_XDP: u32 = 37;
/// Makes packets of the runs go where the program says.
const LIVE_FRAMES: u32 = 1 << 1;

/// Makes a call; `attr` is the beginning of `union bpf_attr`.
pub fn bpf<T>(command: libc::c_long, attr: &mut T) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attr`, and the buffers that it names live during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attr, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub fn descriptor(result: i64) -> OwnedFd {
    // SAFETY: the kernel has just made it for us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(result as i32) }
}

/// Instructions, one after the other.
#[derive(Default)]
struct Code(Vec<u64>);

/// Registers.
const R0: u8 = 0;
const R1: u8 = 1;
const R2: u8 = 2;
const R3: u8 = 3;
const R4: u8 = 4;
const R5: u8 = 5;
const R6: u8 = 6;
const R7: u8 = 7;
const R10: u8 = 10;

impl Code {
    fn push(&mut self, code: u8, dst: u8, src: u8, offset: i16, value: i32) -> &mut Self {
        let registers = u64::from(src << 4 | dst);
        let offset = u64::from(offset as u16);
        self.0.push(u64::from(code) | registers << 8 | offset << 16 | u64::from(value as u32) << 32);
        self
    }

    fn mov(&mut self, dst: u8, src: u8) -> &mut Self {
        self.push(0xbf, dst, src, 0, 0)
    }

    fn mov_value(&mut self, dst: u8, value: i32) -> &mut Self {
        self.push(0xb7, dst, 0, 0, value)
    }

    fn add_value(&mut self, dst: u8, value: i32) -> &mut Self {
        self.push(0x07, dst, 0, 0, value)
    }

    /// 32 bits wide, like the two below.
    fn and_value(&mut self, dst: u8, value: u32) -> &mut Self {
        self.push(0x54, dst, 0, 0, value as i32)
    }

    fn add32_value(&mut self, dst: u8, value: u32) -> &mut Self {
        self.push(0x04, dst, 0, 0, value as i32)
    }

    fn big_endian32(&mut self, dst: u8) -> &mut Self {
        self.push(0xdc, dst, 0, 0, 32)
    }

    fn load32(&mut self, dst: u8, src: u8, offset: i16) -> &mut Self {
        self.push(0x61, dst, src, offset, 0)
    }

    fn store32(&mut self, dst: u8, offset: i16, src: u8) -> &mut Self {
        self.push(0x63, dst, src, offset, 0)
    }

    fn store8_value(&mut self, dst: u8, offset: i16, value: u8) -> &mut Self {
        self.push(0x72, dst, 0, offset, value.into())
    }

    fn store32_value(&mut self, dst: u8, offset: i16, value: u32) -> &mut Self {
        self.push(0x62, dst, 0, offset, value as i32)
    }

    fn jump_if_greater(&mut self, dst: u8, src: u8, over: i16) -> &mut Self {
        self.push(0x2d, dst, src, over, 0)
    }

    fn jump_if_zero(&mut self, dst: u8, over: i16) -> &mut Self {
        self.push(0x15, dst, 0, over, 0)
    }

    fn call(&mut self, helper: i32) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper)
    }

    fn map(&mut self, dst: u8, map: BorrowedFd<'_>) -> &mut Self {
        self.push(0x18, dst, 1, 0, map.as_raw_fd()).push(0, 0, 0, 0, 0)
    }

    fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }
}

fn load(kind: Kind, code: &Code) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        kind: u32,
        count: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        rest: [u32; 8],
    }
    let mut log = vec![0u8; 1 << 16];
    // The last word: where it will be attached; programs that follow each other must say the same.
    let mut rest = [0; 8];
    rest[7] = if kind == Kind::Xdp { AT_XDP } else { 0 };
    let mut attr = Attr {
        kind: kind.number(),
        count: code.0.len() as u32,
        code: code.0.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        rest,
    };
    let loaded = bpf(command::PROG_LOAD, &mut attr);
    let said = String::from_utf8_lossy(&log);
    let loaded = loaded.with_context(|| format!("load a program: {}", said.trim_end_matches('\0').trim()))?;
    Ok(descriptor(loaded))
}

fn create_map(kind: u32, value: u32, entries: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
    }
    let made = bpf(command::MAP_CREATE, &mut Attr { kind, key: 4, value, entries, flags: 0 });
    Ok(descriptor(made.context("make a map")?))
}

/// Puts a descriptor's or a device's number, or any other, into the first place of a map.
fn put(map: &OwnedFd, value: u32) -> Result<()> {
    #[repr(C)]
    struct Attr {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = 0u32;
    let (key, value) = (&raw const key as u64, &raw const value as u64);
    let mut attr = Attr { map: map.as_raw_fd() as u32, padding: 0, key, value, flags: 0 };
    bpf(command::MAP_UPDATE, &mut attr).context("write a map")?;
    Ok(())
}

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
        let (next, counter) = (create_map(PROG_ARRAY, 4, 1)?, create_map(ARRAY, 4, 1)?);
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
        test_run(self.program.as_fd(), packet, repeat, self.ifindex, 0)
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

/// Nanoseconds of a run of a program, and what the last one returned. The packet comes to this device (XDP), or to loopback if it is 0.
///
/// # Errors
/// The kernel refuses it.
pub fn test_run(
    program: BorrowedFd<'_>,
    packet: &[u8],
    repeat: u32,
    ifindex: u32,
    flags: u32,
) -> Result<(u32, u32)> {
    #[repr(C)]
    struct Attr {
        program: u32,
        returned: u32,
        length_in: u32,
        length_out: u32,
        data_in: u64,
        data_out: u64,
        repeat: u32,
        duration: u32,
        context_in_length: u32,
        context_out_length: u32,
        context_in: u64,
        context_out: u64,
        flags: u32,
        cpu: u32,
        batch: u32,
        padding: u32,
    }
    // `xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
    let context = [0, packet.len() as u32, 0, ifindex, 0, 0];
    let (context_length, context_at) =
        if ifindex == 0 { (0, 0) } else { (size_of_val(&context) as u32, context.as_ptr() as u64) };
    let mut attr = Attr {
        program: program.as_raw_fd() as u32,
        returned: 0,
        length_in: packet.len() as u32,
        length_out: 0,
        data_in: packet.as_ptr() as u64,
        data_out: 0,
        repeat,
        duration: 0,
        context_in_length: context_length,
        context_out_length: 0,
        context_in: context_at,
        context_out: 0,
        flags,
        cpu: 0,
        batch: if flags == LIVE_FRAMES { 64 } else { 0 },
        padding: 0,
    };
    bpf(command::TEST_RUN, &mut attr).context("run a program with a packet")?;
    Ok((attr.duration, attr.returned))
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
        let (device, counter) = (create_map(DEVMAP, 4, 1)?, create_map(ARRAY, 4, 1)?);
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
        test_run(self.program.as_fd(), packet, count, 0, LIVE_FRAMES)?;
        Ok(f64::from(count) / start.elapsed().as_secs_f64())
    }
}

/// A program at a device's driver that drops or passes everything: it goes with its link.
///
/// # Errors
/// The kernel refuses it.
pub fn attach_verdict(ifindex: u32, verdict: i32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        program: u32,
        ifindex: u32,
        place: u32,
        flags: u32,
    }
    let mut code = Code::default();
    code.mov_value(R0, verdict).exit();
    let program = load(Kind::Xdp, &code)?;
    let mut attr = Attr { program: program.as_raw_fd() as u32, ifindex, place: AT_XDP, flags: 0 };
    Ok(descriptor(bpf(command::LINK_CREATE, &mut attr).context("attach a program to a driver")?))
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
