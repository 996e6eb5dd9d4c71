//! bpf(2) by hand: small programs written as instructions, maps of one place, and links, where what the tested crates can do is too much or
//! is what is tested.
//!
//! Must not know: the programs that are tested.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::libc;

/// Commands (`enum bpf_cmd` of include/uapi/linux/bpf.h).
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;

/// Kinds of maps (`enum bpf_map_type`): numbers, programs to go on into, devices to send to.
pub const ARRAY: u32 = 2;
/// See [`ARRAY`].
pub const PROG_ARRAY: u32 = 3;
/// See [`ARRAY`].
pub const DEVMAP: u32 = 14;

/// Where programs are attached (`enum bpf_attach_type`): at a device's driver, behind the traffic control's egress.
pub const AT_XDP: u32 = 37;
/// See [`AT_XDP`].
pub const AT_TCX_EGRESS: u32 = 47;

/// Kinds of programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Of the traffic control, at a device.
    Tc,
    /// Of a driver.
    Xdp,
}

impl Kind {
    /// `enum bpf_prog_type`.
    fn number(self) -> u32 {
        match self {
            Self::Tc => 3,
            Self::Xdp => 6,
        }
    }

    /// Where the context holds the beginning and the end of the packet.
    pub fn packet(self) -> (i16, i16) {
        match self {
            Self::Tc => (76, 80),
            Self::Xdp => (0, 4),
        }
    }
}

/// Makes a call; `attributes` is the beginning of `union bpf_attr`, and the buffers that it names live during the call.
///
/// # Errors
/// The kernel's.
pub fn call<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i64> {
    // SAFETY: the kernel reads and writes `size_of::<T>()` bytes of `attributes`, and the buffers that it names live during the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *attributes, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// As [`call`], of a command that answers with a descriptor.
///
/// # Errors
/// The kernel's.
pub fn make<T>(command: libc::c_long, attributes: &mut T) -> io::Result<OwnedFd> {
    let result = i32::try_from(call(command, attributes)?).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made it for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// A descriptor's number, as the attributes have it.
pub fn number(descriptor: impl AsFd) -> u32 {
    // A descriptor that is open is not negative.
    descriptor.as_fd().as_raw_fd() as u32
}

/// Registers.
pub mod register {
    /// By its number.
    pub const R0: u8 = 0;
    /// By its number.
    pub const R1: u8 = 1;
    /// By its number.
    pub const R2: u8 = 2;
    /// By its number.
    pub const R3: u8 = 3;
    /// By its number.
    pub const R4: u8 = 4;
    /// By its number.
    pub const R5: u8 = 5;
    /// By its number.
    pub const R6: u8 = 6;
    /// By its number.
    pub const R7: u8 = 7;
    /// By its number.
    pub const R10: u8 = 10;
}

/// Instructions, one after the other, as eBPF's RFC 9669 has them.
#[derive(Clone, Debug, Default)]
pub struct Code(pub Vec<u64>);

impl Code {
    fn push(&mut self, code: u8, dst: u8, src: u8, offset: i16, value: i32) -> &mut Self {
        let registers = u64::from(src << 4 | dst);
        let offset = u64::from(offset as u16);
        self.0.push(u64::from(code) | registers << 8 | offset << 16 | u64::from(value as u32) << 32);
        self
    }

    /// One register becomes what another is.
    pub fn mov(&mut self, dst: u8, src: u8) -> &mut Self {
        self.push(0xbf, dst, src, 0, 0)
    }

    /// A register becomes a number, with its sign.
    pub fn mov_value(&mut self, dst: u8, value: i32) -> &mut Self {
        self.push(0xb7, dst, 0, 0, value)
    }

    /// A number is added to a register.
    pub fn add_value(&mut self, dst: u8, value: i32) -> &mut Self {
        self.push(0x07, dst, 0, 0, value)
    }

    /// 32 bits wide: only these bits of a register stay.
    pub fn and_value(&mut self, dst: u8, value: u32) -> &mut Self {
        self.push(0x54, dst, 0, 0, value as i32)
    }

    /// 32 bits wide: a number is added.
    pub fn add32_value(&mut self, dst: u8, value: u32) -> &mut Self {
        self.push(0x04, dst, 0, 0, value as i32)
    }

    /// The lower 32 bits in the network's order.
    pub fn big_endian32(&mut self, dst: u8) -> &mut Self {
        self.push(0xdc, dst, 0, 0, 32)
    }

    /// Reads 32 bits of memory, at a register and an offset.
    pub fn load32(&mut self, dst: u8, src: u8, offset: i16) -> &mut Self {
        self.push(0x61, dst, src, offset, 0)
    }

    /// Writes 32 bits to memory.
    pub fn store32(&mut self, dst: u8, offset: i16, src: u8) -> &mut Self {
        self.push(0x63, dst, src, offset, 0)
    }

    /// Writes a byte to memory.
    pub fn store8_value(&mut self, dst: u8, offset: i16, value: u8) -> &mut Self {
        self.push(0x72, dst, 0, offset, value.into())
    }

    /// Writes a number of 32 bits to memory.
    pub fn store32_value(&mut self, dst: u8, offset: i16, value: u32) -> &mut Self {
        self.push(0x62, dst, 0, offset, value as i32)
    }

    /// Goes over so many instructions if one register is greater than another.
    pub fn jump_if_greater(&mut self, dst: u8, src: u8, over: i16) -> &mut Self {
        self.push(0x2d, dst, src, over, 0)
    }

    /// Goes over so many instructions if a register is zero.
    pub fn jump_if_zero(&mut self, dst: u8, over: i16) -> &mut Self {
        self.push(0x15, dst, 0, over, 0)
    }

    /// Calls a helper of the kernel, by its number.
    pub fn call(&mut self, helper: i32) -> &mut Self {
        self.push(0x85, 0, 0, 0, helper)
    }

    /// A register becomes a map.
    pub fn map(&mut self, dst: u8, map: BorrowedFd<'_>) -> &mut Self {
        self.push(0x18, dst, 1, 0, map.as_raw_fd()).push(0, 0, 0, 0, 0)
    }

    /// Ends the program.
    pub fn exit(&mut self) -> &mut Self {
        self.push(0x95, 0, 0, 0, 0)
    }
}

/// Loads a program.
///
/// # Errors
/// What the verifier says.
pub fn load(kind: Kind, code: &Code) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
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
    let mut attributes = Attributes {
        kind: kind.number(),
        count: code.0.len() as u32,
        code: code.0.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        log_level: 1,
        log_size: log.len() as u32,
        log: log.as_mut_ptr() as u64,
        rest,
    };
    let loaded = make(PROG_LOAD, &mut attributes);
    let said = String::from_utf8_lossy(&log);
    loaded.with_context(|| format!("load a program: {}", said.trim_end_matches('\0').trim()))
}

/// Attaches a program to a device of the calling thread's namespace, until the link is dropped.
///
/// # Errors
/// The kernel refuses it.
pub fn attach(program: &OwnedFd, ifindex: u32, place: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        program: u32,
        ifindex: u32,
        place: u32,
        flags: u32,
        relative: u32,
        padding: u32,
        revision: u64,
    }
    let program = number(program);
    let mut attributes =
        Attributes { program, ifindex, place, flags: 0, relative: 0, padding: 0, revision: 0 };
    make(LINK_CREATE, &mut attributes).with_context(|| format!("attach a program to the device {ifindex}"))
}

/// Makes a map with keys and values of four bytes and one place.
///
/// # Errors
/// The kernel refuses it.
pub fn create_map(kind: u32) -> Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
        flags: u32,
    }
    let mut attributes = Attributes { kind, key: 4, value: 4, entries: 1, flags: 0 };
    make(MAP_CREATE, &mut attributes).context("make a map")
}

/// Puts a descriptor's or a device's number, or any other, into the place of a map.
///
/// # Errors
/// The kernel refuses it.
pub fn put(map: &OwnedFd, value: u32) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        map: u32,
        padding: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    let key = 0u32;
    let (key, value) = (&raw const key as u64, &raw const value as u64);
    let mut attributes = Attributes { map: number(map), padding: 0, key, value, flags: 0 };
    call(MAP_UPDATE, &mut attributes).context("write a map")?;
    Ok(())
}
